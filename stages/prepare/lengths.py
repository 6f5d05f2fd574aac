"""Lengths of the rows in tokens, as figures."""

import statistics
from typing import Any

import numpy as np

BINS = 20


def summary(lengths: list[int]) -> dict[str, Any]:
    """The least, the middle and the most tokens of a row, and those of all rows."""
    return {"min": min(lengths), "median": statistics.median(lengths), "max": max(lengths), "sum": sum(lengths)}


def histogram(lengths: list[int]) -> dict[str, list[int]]:
    """Rows by their tokens in at most BINS bins of whole tokens: `edges`, one more than there are `counts`."""
    least, most = min(lengths), max(lengths)
    width = (most - least) // BINS + 1
    counts, edges = np.histogram(lengths, bins=np.arange(least, most + width + 1, width))
    return {"edges": edges.tolist(), "counts": counts.tolist()}
