"""Measures how fast torch multiplies float32 matrices here: sizes of the model, and a big square as the machine's best.

python -m benchmarks.matrix_rate REPORT
"""

import json
import sys
import time
from pathlib import Path

import torch

SHAPES = ((466, 576, 1536), (466, 1536, 576), (466, 576, 576), (3072, 3072, 3072))  # rows, inner, columns
SECONDS = 1.0  # for each shape


def best_rate(rows: int, inner: int, columns: int) -> float:
    """GFLOP/s of the fastest of many products of one shape."""
    left, right = torch.rand(rows, inner), torch.rand(inner, columns)
    out = torch.empty(rows, columns)
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * rows * inner * columns / best / 1e9


if __name__ == "__main__":
    rates = {f"{rows}x{inner} @ {inner}x{columns}": round(best_rate(rows, inner, columns), 1) for rows, inner, columns in SHAPES}
    Path(sys.argv[1]).write_text(json.dumps(rates), encoding="utf-8")
