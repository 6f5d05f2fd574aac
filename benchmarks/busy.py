"""Measures how much of their speed training and the int4 model keep where other processes keep cores busy.

    python -m benchmarks.busy                                   # some ten minutes on two cores, after `make repro`
    python -m benchmarks.busy --variable GOMP_SPINCOUNT=3000    # with another environment

The default recipe is trained for STEPS steps and `stages.evaluate onnx` is run, each next to 0, 1 and 2 processes that compute
without end. The table shows the share of the speed on the quiet machine.
"""

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, main, table
from benchmarks.processes import Figures, environment, make_repository, run, workspace
from tunepress.core.files import read_json
from tunepress.core.paths import BASE, ONNX, PREPARED, TIMINGS

NEIGHBOURS = (0, 1, 2)
STEPS = 12


def add_options(parser: ArgumentParser) -> None:
    """Adds --variable and --only."""
    parser.add_argument("--variable", action="append", default=[], help="NAME=VALUE in the environment of what is measured")
    parser.add_argument("--only", choices=["train", "onnx"], help="measure only this")


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Speeds by the number of busy processes."""
    variables = dict(variable.split("=", 1) for variable in options.variable)
    measured = {}
    for neighbours in NEIGHBOURS:
        with console.status(f"{neighbours} busy processes"), busy(neighbours):
            measured[str(neighbours)] = speeds(scratch / f"neighbours-{neighbours}", variables, options.only)
    return {"neighbours": measured}


def speeds(folder: Path, variables: dict[str, str], only: str | None) -> dict[str, float]:
    """Steps of training in a second, and rows that the int4 model answers in a second in `evaluate`."""
    workspace(folder, BASE, PREPARED, ONNX, "conf", "params.yaml")
    variables = environment(folder, kernels=True) | variables
    make_repository(folder, variables)
    measured = {}
    if only != "onnx":
        arguments = ("stages.train", f"train.max_steps={STEPS}", "train.eval_strategy='no'", "train.save_strategy='no'")
        run("train", folder, variables, sys.executable, "-m", "benchmarks.train.timed", "timed.json", *arguments)
        timed = read_json(folder / "timed.json")
        measured["training_steps"] = round(timed["steps"] / timed["training_seconds"], 3)
    if only != "train":
        run("onnx", folder, variables, sys.executable, "-m", "stages.evaluate", "onnx")
        seconds = read_json(folder / TIMINGS / "evaluate_onnx.json")["seconds"]
        measured["evaluated_rows"] = round(read_json(folder / "metrics/evaluate/onnx.json")["rows"] / seconds, 2)
    return measured


@contextmanager
def busy(neighbours: int) -> Iterator[None]:
    """Processes that compute until the block ends."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """One line for each number of busy processes."""
    quiet = measured["neighbours"]["0"]
    rows = [
        (neighbours, *(f"{speed:g} ({speed / quiet[name]:.0%})" for name, speed in speeds.items()))
        for neighbours, speeds in measured["neighbours"].items()
    ]
    yield table("speed next to busy processes", ("processes", *(f"{name.replace('_', ' ')} a second" for name in quiet)), rows)


BENCHMARK = Benchmark("busy", __doc__, ("torch", "onnxruntime", "onnxruntime-genai"), measure, report, add_options)

if __name__ == "__main__":
    main(BENCHMARK)
