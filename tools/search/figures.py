"""The figures of a trial, by the names of `dvc exp show`, and the limits that constraints set them."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dvc.api import DVCFileSystem, metrics_show

from tools.search.schema import Bound, Search
from tunepress.core.errors import InputError
from tunepress.text.labels import SCORES

Figures = dict[str, float]

ROWS = "metrics/evaluate/onnx.json:rows"
FEW = 200  # rows: with fewer the interval of an accuracy of 0.9 is over 8 points wide


def figures_of(revision: str) -> Figures:
    """The figures of an experiment: DVC's metrics by their names in `dvc exp show`, `passed`, all others as FILE:KEY.

    Args:
        revision: the experiment's commit.
    """
    files = DVCFileSystem(rev=revision)
    details: Figures = {}
    for path in files.find("metrics"):
        if path.endswith(".json"):
            with contextlib.suppress(FileNotFoundError):  # it is not in the cache, as after `dvc exp pull` of the metrics alone
                details |= {f"{path}:{key}": number for key, number in numbers(json.loads(files.read_text(path)))}
    metrics = metrics_show(rev=revision)
    return details | dict(numbers(metrics)) | {"passed": float(metrics.get("gate") == "passed")}


def numbers(tree: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested mappings by their dotted keys; true and false are 1 and 0, and anything else is left out."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}.")
        elif isinstance(value, bool | int | float) and not math.isnan(value):
            yield f"{prefix}{name}", float(value)


@dataclass(frozen=True)
class Limit:
    """What a figure may be at most (sign 1) or at least (sign -1)."""

    metric: str
    sign: int
    value: float
    source: str = ""  # where the value comes from, where that is not the file

    def __str__(self) -> str:
        relation = "at most" if self.sign > 0 else "at least"
        return f"{self.metric} {relation} {self.value:.5g}{f' ({self.source})' if self.source else ''}"

    def excess(self, figures: Figures) -> float:
        """How far the figure is beyond the limit; zero or less where it is kept."""
        return self.sign * (figure(self.metric, figures) - self.value)


def limits(constraints: dict[str, Bound], default: Figures) -> list[Limit]:
    """The limits of all constraints.

    Args:
        constraints: the bounds of each figure.
        default: the figures of the default recipe, on which shares are taken.
    """
    found = []
    for metric, bound in constraints.items():
        of_default = figure(metric, default)
        for sign, limit, share in ((1, bound.max, bound.max_share_of_default), (-1, bound.min, bound.min_share_of_default)):
            if limit is not None:
                found.append(Limit(metric, sign, limit))
            if share is not None:
                found.append(Limit(metric, sign, share * of_default, f"{share:g} of the default's {of_default:.5g}"))
    return found


def interval(metric: str, figures: Figures) -> tuple[float, float] | None:
    """The confidence interval of a score; None for other figures."""
    file, _, name = metric.rpartition(":")
    low, high = (figures.get(f"{file or 'metrics/evaluate/onnx.json'}:{name}_{end}") for end in ("low", "high"))
    return None if low is None or high is None else (low, high)


def resolution(figures: Figures) -> str:
    """How finely the rows tell recipes apart, and what to do where that is not fine enough."""
    rows = figures.get(ROWS)
    score = next((name for name in SCORES if name in figures), None)
    bounds = interval(score, figures) if score else None
    if not rows or not score or not bounds:
        return ""
    low, high = bounds
    interval_of = f"the interval of the default recipe's {score}, {figures[score]:.3f}, is {low:.3f} to {high:.3f}"
    message = f"trials are scored on {rows:.0f} validation rows: one row is {1 / rows:.4f}, and {interval_of}"
    return f"{message}; set data.eval_dataset_size in overrides for more rows" if rows < FEW else message


def figure(metric: str, figures: Figures) -> float:
    """One figure.

    Raises:
        InputError: the trial has none of this name.
    """
    if metric not in figures:
        raise InputError(f"no figure {metric}; a trial has {', '.join(sorted(figures)) or 'none'}")
    return figures[metric]


def axes(search: Search) -> dict[str, int]:
    """The figures that a trial is judged by, the goal first, with 1 where less is better and -1 where more is."""
    signs = {search.goal: search.sign}
    for metric, bound in search.constraints.items():
        signs.setdefault(metric, 1 if bound.max is not None or bound.max_share_of_default is not None else -1)
    return signs
