"""Calibration: the accuracy of a model at each level of confidence."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from tunepress.inference.calibration import BINS


@dataclass(frozen=True)
class Bin:
    """Rows of similar confidence.

    Attributes:
        confidence: the mean probability of their most likely label.
        right: share of them whose most likely label is the expected one.
        rows: their number.
    """

    confidence: float
    right: float
    rows: int


def bins_of(rows: Iterable[dict[str, str]], column: str = "confidence") -> list[Bin]:
    """The bins that are not empty, by rising confidence.

    Args:
        rows: predictions with `expected`, `top_label` and the column.
        column: with the confidence, 0 to 1.
    """
    members: dict[int, list[tuple[float, bool]]] = {}
    for row in rows:
        confidence = float(row[column])
        number = min(int(confidence * BINS), BINS - 1)
        members.setdefault(number, []).append((confidence, row["top_label"] == row["expected"]))
    return [
        Bin(fmean(confidence for confidence, _ in rows), fmean(right for _, right in rows), len(rows))
        for _, rows in sorted(members.items())
    ]
