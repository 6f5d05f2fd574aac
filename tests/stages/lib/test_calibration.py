"""Calibration: rows of like confidence."""

import pytest

from stages.lib.calibration import Bin, bins_of


def row(confidence: str, right: bool) -> dict[str, str]:
    return {"expected": "joy", "likeliest": "joy" if right else "fear", "confidence": confidence}


def test_rows_are_put_in_ten_bins_and_empty_ones_are_left_out() -> None:
    rows = [row("0.9500", True), row("0.3000", False), row("0.9100", False), row("1.0000", True), row("0.3999", True)]
    found = bins_of(rows)
    assert [(one.confidence, one.right, one.rows) for one in found] == [
        (pytest.approx(0.34995), 0.5, 2),
        (pytest.approx(0.95333, abs=1e-5), pytest.approx(2 / 3), 3),
    ]


def test_no_rows_have_no_bins() -> None:
    assert bins_of([]) == []
    assert bins_of([row("0.0000", False)]) == [Bin(0.0, 0.0, 1)]
