"""What all benchmarks share: which runs are kept, errors in one line, and functions called in processes of their own."""

import importlib
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import harness, processes
from benchmarks.harness import Benchmark
from benchmarks.processes import Figures
from tunepress.core import KERNELS
from tunepress.core.errors import InputError
from tunepress.core.files import read_json

FOLDER = Path(harness.__file__).parent
MODULES = {file.parent.name: f"benchmarks.{file.parent.name}.__main__" for file in FOLDER.glob("*/__main__.py")} | {
    name: f"benchmarks.{name}" for name in ("busy", "chat", "gptq", "prepare")
}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--seeds", type=harness.numbers, default=[0])


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    if options.rows < 1:
        raise InputError(f"--rows: must be at least 1, got {options.rows}")
    if options.rows == 99:
        raise KeyboardInterrupt
    return {"rows": options.rows, "scratch": str(scratch)}


BENCHMARK = Benchmark(
    "mine",
    "Measures nothing.",
    ("rich",),
    measure,
    lambda figures, options: [f"{figures['rows']} rows"],
    add_options,
    failure=lambda figures: "lost a row" if figures["rows"] == 7 else None,
    recorded=("seeds",),
)


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def test_a_run_with_the_default_options_is_kept_with_its_circumstances(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harness.main(BENCHMARK, ["--seeds", "1,2"])
    kept = read_json(results / "mine.json")
    assert list(kept) == ["date", "cpu", "cores", "python", "packages", "load_at_start", "rows", "scratch"]
    assert kept["packages"].keys() == {"rich"} and kept["rows"] == 3
    assert not Path(kept["scratch"]).exists()
    assert "3 rows" in capsys.readouterr().out


def test_a_run_with_other_options_is_kept_only_in_a_file_of_its_own(results: Path, tmp_path: Path) -> None:
    harness.main(BENCHMARK, ["--rows", "2"])
    harness.main(BENCHMARK, ["--rows", "2", "--output", str(tmp_path / "own.json")])
    assert not results.exists()
    assert read_json(tmp_path / "own.json")["rows"] == 2


@pytest.mark.parametrize(
    ("rows", "message"), [("0", "--rows: must be at least 1, got 0"), ("99", "interrupted"), ("7", "lost a row")]
)
def test_a_failure_is_one_line(rows: str, message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        harness.main(BENCHMARK, ["--rows", rows])
    assert ended.value.code == f"benchmarks.mine: {message}"


def test_options_are_checked_before_anything_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    def check(options: Namespace) -> None:
        raise InputError("not here")

    with pytest.raises(SystemExit, match="not here"):
        harness.main(replace(BENCHMARK, check=check), [])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_benchmark_has_its_help(name: str, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = importlib.import_module(MODULES[name]).BENCHMARK
    with pytest.raises(SystemExit) as ended:
        harness.parse(benchmark, ["--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert f"usage: python -m benchmarks.{name}" in output and "--output FILE" in output
    assert harness.parse(benchmark, []).output == results / f"{name}.json"


def task(case: str) -> dict[str, Any]:
    """Called in a child."""
    if case == "input error":
        raise InputError("rows.jsonl: no rows")
    if case == "crash":
        raise ValueError("a bug")
    return {"kernels": sorted(KERNELS.keys() & os.environ.keys()), "cwd": str(Path.cwd())}


@pytest.mark.parametrize("kernels", [True, False])
def test_a_function_runs_in_a_process_of_its_own(kernels: bool, tmp_path: Path) -> None:
    figures, usage = processes.call(f"{__name__}:task", tmp_path, kernels, case="good")
    assert figures == {"kernels": sorted(KERNELS) if kernels else [], "cwd": str(tmp_path)}
    assert usage.seconds > 0 and usage.peak_memory_mb > 0


@pytest.mark.parametrize(("case", "message"), [("input error", "rows.jsonl: no rows"), ("crash", "ValueError: a bug")])
def test_a_function_that_fails_is_an_error_in_one_line(case: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        processes.call(f"{__name__}:task", tmp_path, kernels=True, title="the rows", case=case)
    assert str(error.value) == f"the rows: exit code 1: {message}"


def test_an_interrupt_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children = []

    def interrupted(pid: int, options: int) -> Any:
        children.append(pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "wait4", interrupted)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        processes.run("sleep", tmp_path, os.environ, sys.executable, "-c", "import time; time.sleep(60)")
    assert time.monotonic() - start < 30
    with pytest.raises(ProcessLookupError):
        os.kill(children[0], 0)


def test_what_the_project_lacks_cannot_be_linked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="models/none: not found; run `make repro`"):
        processes.workspace(tmp_path, "conf", "models/none")
    assert (tmp_path / "conf/config.yaml").exists()
