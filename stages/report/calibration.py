"""Calibration: how often a model is right where it is so and so sure."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

BINS = 10  # of equal width, as in the calibration error


@dataclass(frozen=True)
class Bin:
    """Rows of like confidence.

    Attributes:
        confidence: their mean probability of the likeliest label.
        right: share of them whose likeliest label is the expected one.
        rows: how many there are.
    """

    confidence: float
    right: float
    rows: int


def bins_of(rows: Iterable[dict[str, str]]) -> list[Bin]:
    """The bins that hold a row, from the least sure to the surest.

    Args:
        rows: predictions with `expected`, `top_label` and `confidence`, 0 to 1.
    """
    members: dict[int, list[tuple[float, bool]]] = {}
    for row in rows:
        confidence = float(row["confidence"])
        number = min(int(confidence * BINS), BINS - 1)
        members.setdefault(number, []).append((confidence, row["top_label"] == row["expected"]))
    return [
        Bin(fmean(confidence for confidence, _ in one), fmean(right for _, right in one), len(one))
        for _, one in sorted(members.items())
    ]
