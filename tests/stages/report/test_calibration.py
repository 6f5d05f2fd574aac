"""Calibration: rows of like confidence."""

import numpy as np
import pytest

from stages.report.calibration import Bin, bins_of
from tunepress.inference.calibration import calibration_error


def row(confidence: str, right: bool) -> dict[str, str]:
    return {"expected": "joy", "top_label": "joy" if right else "fear", "confidence": confidence}


def test_rows_are_put_in_ten_bins_and_empty_ones_are_left_out() -> None:
    rows = [row("0.9500", True), row("0.3000", False), row("0.9100", False), row("1.0000", True), row("0.3999", True)]
    unsure, sure = bins_of(rows)
    assert (unsure.rows, sure.rows) == (2, 3)
    assert (unsure.confidence, unsure.right) == pytest.approx((0.34995, 1 / 2))
    assert (sure.confidence, sure.right) == pytest.approx((0.95333, 2 / 3), abs=1e-5)


def test_the_bins_are_those_of_the_calibration_error() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.2, 1, 500).round(4)
    right = random.uniform(size=500) < confidence
    bins = bins_of(row(f"{probability:.4f}", bool(correct)) for probability, correct in zip(confidence, right, strict=True))
    error = sum(abs(bin_.confidence - bin_.right) * bin_.rows for bin_ in bins) / 500
    assert error == pytest.approx(calibration_error(confidence, right))


def test_no_rows_have_no_bins() -> None:
    assert bins_of([]) == []
    assert bins_of([row("0.0000", False)]) == [Bin(0.0, 0.0, 1)]
