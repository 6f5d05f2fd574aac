"""Measures how training and the int4 model keep their speed where other processes keep cores busy.

    python -m benchmarks.busy                                   # some ten minutes on two cores, after `make repro`
    python -m benchmarks.busy --variable GOMP_SPINCOUNT=3000    # with another environment; not written to results/

The default recipe is trained for STEPS steps and `stages.evaluate onnx` is run, each next to 0, 1 and 2 processes that compute
without end. Kept is the share of the speed on the quiet machine. The figures also go to benchmarks/results/busy.json.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.children import ROOT, environment, read_json, run
from benchmarks.circumstances import circumstances, load_at_start
from benchmarks.contenders import make_repository, workspace
from tunepress.core.errors import InputError
from tunepress.core.files import write_json
from tunepress.core.paths import ONNX, TIMINGS

RESULTS = Path(__file__).resolve().parent / "results" / "busy.json"
NEIGHBOURS = (0, 1, 2)
STEPS = 12
PACKAGES = ("torch", "onnxruntime", "onnxruntime-genai")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy", description=__doc__.splitlines()[0])
    parser.add_argument("--variable", action="append", default=[], help="NAME=VALUE in the environment of what is measured")
    parser.add_argument("--only", choices=["train", "onnx"], help="measure this alone; not written to results/")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        load = load_at_start(console)
        with tempfile.TemporaryDirectory(prefix="tunepress-") as scratch:
            measured = {
                str(neighbours): measure(Path(scratch), neighbours, options.variable, options.only) for neighbours in NEIGHBOURS
            }
        console.print(table(measured))
        if not options.variable and not options.only:
            write_json(RESULTS, {**circumstances(PACKAGES), "load_at_start": load, "neighbours": measured})
            console.print(f"written to {RESULTS.relative_to(ROOT)}")
    except InputError as error:
        sys.exit(f"benchmarks.busy: {error}")
    except KeyboardInterrupt:
        sys.exit("benchmarks.busy: interrupted")


def measure(scratch: Path, neighbours: int, variables: list[str], only: str | None) -> dict[str, float]:
    """Steps of training and rows that `evaluate` has the int4 model answer in a second, next to some busy processes."""
    folder = workspace(scratch, f"neighbours-{neighbours}")
    (folder / ONNX).symlink_to(ROOT / ONNX)
    own = environment(scratch, kernels=True) | dict(variable.split("=", 1) for variable in variables)
    make_repository(folder, own)
    speeds = {}
    with busy(neighbours):
        if only != "onnx":
            arguments = ("stages.train", f"train.max_steps={STEPS}", "train.eval_strategy='no'", "train.save_strategy='no'")
            run("train", folder, own, sys.executable, "-m", "benchmarks.timed", "timed.json", *arguments)
            timed = read_json(folder / "timed.json")
            speeds["training_steps"] = round(timed["steps"] / timed["training_seconds"], 3)
        if only != "train":
            run("onnx", folder, own, sys.executable, "-m", "stages.evaluate", "onnx")
            seconds = read_json(folder / TIMINGS / "evaluate_onnx.json")["seconds"]
            speeds["evaluated_rows"] = round(read_json(folder / "metrics/evaluate/onnx.json")["rows"] / seconds, 2)
    return speeds


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


def table(measured: dict[str, dict[str, float]]) -> Table:
    """One line for each number of busy processes, with the share of the quiet machine's speed."""
    columns = Table("busy processes")
    for name in measured["0"]:
        columns.add_column(f"{name.replace('_', ' ')} a second", justify="right")
    for neighbours, speeds in measured.items():
        columns.add_row(neighbours, *(f"{speed:g} ({speed / measured['0'][name]:.0%})" for name, speed in speeds.items()))
    return columns


if __name__ == "__main__":
    main()
