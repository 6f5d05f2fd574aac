"""The figures of a trial, by the names of `dvc exp show`, and the limits that constraints set them."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.search.schema import Bound, Search
from tunepress.core.errors import InputError

Figures = dict[str, float]

ROWS = "metrics/evaluate/onnx.json:rows"
SCORES = ("onnx.accuracy", "onnx.exact_match")
FEW = 200  # rows: with fewer the interval of an accuracy of 0.9 is over 8 points wide


def flatten(metrics: Mapping[str, Any]) -> Figures:
    """DVC's metrics of one experiment as dotted keys; the file stands before a key that several files have.

    Args:
        metrics: as `dvc.api.metrics_show` gives them, nested, with `<file>:` before a name that several files have.
    """
    found = [
        (file, key, number)
        for name, part in metrics.items()
        for file, head in [split(name)]
        for key, number in numbers(head, part)
    ]
    times = Counter(key for _, key, _ in found)
    return {key if times[key] == 1 else f"{file}:{key}": number for file, key, number in found}


def split(name: str) -> tuple[str, str]:
    """A name of `dvc.api.metrics_show` as file, empty where it says none, and key."""
    file, colon, key = name.rpartition(":")
    return (file, key) if colon else ("", name)


def numbers(key: str, part: Any) -> list[tuple[str, float]]:
    """The numbers below a key; true and false are 1 and 0, and what is no number is left out."""
    if isinstance(part, Mapping):
        return [found for name, below in part.items() for found in numbers(f"{key}.{name}", below)]
    if isinstance(part, bool | int | float) and not math.isnan(part):
        return [(key, float(part))]
    return []


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
    """The confidence interval of a candidate's accuracy or exact match; None for other figures."""
    candidate, _, name = metric.partition(".")
    low, high = (figures.get(f"metrics/evaluate/{candidate}.json:{name}_{end}") for end in ("low", "high"))
    return None if low is None or high is None else (low, high)


def resolution(figures: Figures) -> str:
    """How finely the rows tell recipes apart, and what to do where that is not fine enough."""
    rows = figures.get(ROWS)
    score = next((metric for metric in SCORES if metric in figures), None)
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
