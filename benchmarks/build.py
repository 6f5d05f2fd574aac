"""Measures the int4 build: this project's stage and the builder alone, on one model in the same run.

    python -m benchmarks.build                    # some ten minutes on two cores, 23 GB of memory and 17 GB of disk below TMPDIR
    python -m benchmarks.build --shape tiny       # to see that it works

The model is that of benchmarks/merge.py: random weights in Phi-3-mini's shape, in bfloat16. Both make the builder's default int4
model for CPU, each in a process of its own:

- tunepress: stages.build.build, which rounds tensor by tensor and hands the builder a checkpoint.
- builder: onnxruntime-genai's builder on the model's folder.

The columns are those of benchmarks/merge.py. Then the two graphs are compared node by node, with their constants.
The figures also go to benchmarks/results/build.json; those of the tiny shape do not.
"""

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import merge
from benchmarks.circumstances import circumstances, load_at_start
from benchmarks.merge import MODEL_BYTES, check_disk
from tunepress.core.errors import InputError
from tunepress.core.files import write_json

RESULTS = Path(__file__).resolve().parent / "results" / "build.json"
CONTENDERS = ("tunepress", "builder")
PACKAGES = ("torch", "transformers", "onnxruntime", "onnxruntime-genai")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.build", description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=list(MODEL_BYTES), default="phi3-mini", help="of the model")
    shape = parser.parse_args().shape
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        with tempfile.TemporaryDirectory(prefix="tunepress-") as scratch:
            measured = measure(console, Path(scratch), shape)
        console.print(table(measured))
        console.print(f"{measured['compared']['equal']} of {measured['compared']['nodes']} nodes are the builder's own")
        if shape != "tiny":
            write_json(RESULTS, {**circumstances(PACKAGES), **measured})
            console.print(f"written to {RESULTS}")
    except InputError as error:
        sys.exit(f"benchmarks.build: {error}")
    except KeyboardInterrupt:
        sys.exit("benchmarks.build: interrupted")


def measure(console: Console, scratch: Path, shape: str) -> dict[str, Any]:
    """Runs the contenders in a temporary folder."""
    check_disk(scratch, 2.2 * MODEL_BYTES[shape])
    child = partial(merge.child, contender="benchmarks.build_contender")
    load = load_at_start(console)
    with console.status("making the model"):
        made = child("models", scratch, shape)
    imports = child("imports", scratch)["peak_memory_mb"]
    contenders = {}
    for name in CONTENDERS:
        with console.status(name):
            os.sync()
            contenders[name] = child(name, scratch)
    with console.status("comparing"):
        compared = child("compare", scratch)
    return {
        "load_at_start": load,
        "shape": shape,
        "made": made,
        "imports_peak_memory_mb": imports,
        "contenders": contenders,
        "compared": compared,
    }


def table(measured: dict[str, Any]) -> Table:
    """One line for each contender."""
    columns = Table(title=f"{measured['made']['parameters'] / 1e6:,.2f} M parameters to int4")
    columns.add_column("contender", no_wrap=True)
    for name in ("process", "work", "cores\nbusy", "peak\nmemory", "over Python\nwith torch", "size on disk"):
        columns.add_column(name, justify="right", no_wrap=True)
    for name, one in measured["contenders"].items():
        columns.add_row(
            name,
            f"{one['process_seconds']:.1f} s",
            f"{one['work_seconds']:.1f} s",
            f"{one['cpu_seconds'] / one['process_seconds']:.2f}",
            f"{one['peak_memory_mb'] / 1000:.2f} GB",
            f"{(one['peak_memory_mb'] - measured['imports_peak_memory_mb']) / 1000:.2f} GB",
            f"{one['size_mb']:,.1f} MB",
        )
    return columns


if __name__ == "__main__":
    main()
