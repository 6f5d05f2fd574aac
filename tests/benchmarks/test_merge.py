"""The merge benchmark on a tiny model: every contender with its figures, and results that differ by rounding alone."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import models
from benchmarks.harness import parse
from benchmarks.merge import __main__ as merge
from benchmarks.merge.contender import ordered
from tunepress.core.errors import InputError


@pytest.mark.slow
def test_the_tiny_shape_shows_every_contender_and_how_the_results_differ(root: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.merge", "--shape", "tiny"],
        cwd=root,
        env={"PATH": "", "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if line.startswith("│")]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    assert [row[0] for row in rows] == list(merge.CONTENDERS)
    assert rows[0][2] == "1.00"
    assert "values are equal to peft's" in ended.stdout and "100.0000% within a step" in ended.stdout
    assert "written to" not in ended.stdout
    assert not list(tmp_path.glob("tunepress-*"))  # torch leaves a folder of its own


def test_a_disk_without_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.SHAPES, "tiny", replace(models.SHAPES["tiny"], model_bytes=10**18))
    with pytest.raises(InputError, match=r"GB free, needs .* GB; set TMPDIR to another folder"):
        merge.measure(parse(merge.BENCHMARK, ["--shape", "tiny"]), tmp_path, Console(quiet=True))


def test_the_next_value_has_the_next_number() -> None:
    values = torch.tensor([-1.0078125, -1.0, -1e-40, -0.0, 0.0, 1.0, 1.0078125]).bfloat16()
    numbers = ordered(values)
    assert numbers.tolist() == sorted(numbers.tolist())
    assert numbers[1] - numbers[0] == numbers[6] - numbers[5] == 1
    assert numbers[3] == numbers[4] == 0
