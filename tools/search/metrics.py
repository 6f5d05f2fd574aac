"""The metrics of a trial, named as in `dvc exp show`, and the limits that constraints set."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dvc.api import DVCFileSystem, metrics_show

from tools.search.schema import Bound, Search
from tunepress.core.errors import InputError
from tunepress.core.keys import flatten
from tunepress.text.labels import SCORES

Metrics = dict[str, float]

ROWS = "metrics/evaluate/onnx.json:rows"
FEW = 200  # rows; with fewer, the interval of an accuracy of 0.9 is wider than 8 points


def metrics_of(revision: str) -> Metrics:
    """The metrics of an experiment: DVC's metrics, named as in `dvc exp show`, `passed`, and all others as FILE:KEY.

    Args:
        revision: the experiment's commit.
    """
    files = DVCFileSystem(rev=revision)
    details: Metrics = {}
    for path in files.find("metrics"):
        if path.endswith(".json"):
            with contextlib.suppress(FileNotFoundError):  # it is not in the cache, as after a `dvc exp pull` of the metrics only
                details |= {f"{path}:{key}": number for key, number in numbers(json.loads(files.read_text(path)))}
    metrics = metrics_show(rev=revision)
    return details | dict(numbers(metrics)) | {"passed": float(metrics.get("gate") == "passed")}


def numbers(tree: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of nested mappings by their dotted keys; true and false are 1 and 0, other values are left out."""
    for key, value in flatten(tree).items():
        if isinstance(value, bool | int | float) and not math.isnan(value):
            yield key, float(value)


@dataclass(frozen=True)
class Limit:
    """The maximum (sign 1) or minimum (sign -1) of a metric."""

    metric: str
    sign: int
    value: float
    source: str = ""  # of the value, unless it is in the file

    def __str__(self) -> str:
        relation = "at most" if self.sign > 0 else "at least"
        return f"{self.metric} {relation} {self.value:.5g}{f' ({self.source})' if self.source else ''}"

    def excess(self, metrics: Metrics) -> float:
        """How far the metric exceeds the limit; at most zero if it is met."""
        return self.sign * (value_of(self.metric, metrics) - self.value)


def limits(constraints: dict[str, Bound], default: Metrics) -> list[Limit]:
    """The limits of all constraints.

    Args:
        constraints: the bounds of each metric.
        default: the metrics of the default recipe, to which shares refer.
    """
    result = []
    for metric, bound in constraints.items():
        default_value = value_of(metric, default)
        for sign, limit, share in ((1, bound.max, bound.max_share_of_default), (-1, bound.min, bound.min_share_of_default)):
            if limit is not None:
                result.append(Limit(metric, sign, limit))
            if share is not None:
                result.append(Limit(metric, sign, share * default_value, f"{share:g} of the default's {default_value:.5g}"))
    return result


def interval(metric: str, metrics: Metrics) -> tuple[float, float] | None:
    """The confidence interval of a score; None for other metrics."""
    file, _, name = metric.rpartition(":")
    low, high = (metrics.get(f"{file or 'metrics/evaluate/onnx.json'}:{name}_{end}") for end in ("low", "high"))
    return None if low is None or high is None else (low, high)


def resolution(metrics: Metrics) -> str:
    """A message about how well the rows distinguish recipes, and the cure if they are too few."""
    rows = metrics.get(ROWS)
    score = next((name for name in SCORES if name in metrics), None)
    bounds = interval(score, metrics) if score else None
    if not rows or not score or not bounds:
        return ""
    low, high = bounds
    interval_text = f"the interval of the default recipe's {score}, {metrics[score]:.3f}, is {low:.3f} to {high:.3f}"
    message = f"trials are scored on {rows:.0f} validation rows: one row is {1 / rows:.4f}, and {interval_text}"
    return f"{message}; set data.eval_dataset_size in overrides for more rows" if rows < FEW else message


def value_of(metric: str, metrics: Metrics) -> float:
    """Returns a metric.

    Raises:
        InputError: the trial has no metric of this name.
    """
    if metric not in metrics:
        raise InputError(f"no metric {metric}; a trial has {', '.join(sorted(metrics)) or 'none'}")
    return metrics[metric]


def axes(search: Search) -> dict[str, int]:
    """The metrics that decide, the goal first, with 1 if less is better and -1 if more is."""
    signs = {search.goal: search.sign}
    for metric, bound in search.constraints.items():
        signs.setdefault(metric, 1 if bound.max is not None or bound.max_share_of_default is not None else -1)
    return signs
