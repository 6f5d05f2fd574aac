"""Measures the merge: this project's stage, peft, and a copy of the same files, on one model in the same run.

    python -m benchmarks.merge                    # some five minutes on two cores, and 31 GB of disk below TMPDIR
    python -m benchmarks.merge --shape tiny       # to see that it works

The model has random weights in Phi-3-mini's shape (3.8 billion parameters, bfloat16, files of up to 5 GB as the real one has
them), the adapter r=64 on each linear layer but the head, in float32 as training leaves it. Contenders run one after the
other, each in a process of its own, after all that was written before has reached the disk:

- copy: shutil.copyfile of the base model's files. No merge that leaves them as they are can be faster.
- tunepress: the stage merge, with the tokenizer and what else it writes.
- peft: from_pretrained, merge_and_unload and save_pretrained. Its check for NaN (safe_merge), which the stage makes too, would
  cost it more time and memory.

- process: seconds from start to end, with imports.
- work: seconds without the imports.
- cores busy: CPU time of the process by its seconds.
- peak memory: largest resident size of the process; and what of it is more than Python's with torch imported.

Then both results are compared, value by value: both round once, from sums in float32 whose last bits may differ.
The figures also go to benchmarks/results/merge.json; those of the tiny shape do not.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.children import environment, read_json, run
from benchmarks.circumstances import circumstances, load_at_start
from tunepress.core.errors import InputError
from tunepress.core.files import remove, write_json

RESULTS = Path(__file__).resolve().parent / "results" / "merge.json"
CONTENDERS = ("copy", "tunepress", "peft")
MODEL_BYTES = {"phi3-mini": 7_642_000_000, "tiny": 300_000}
FOLDERS = 4  # models on the disk at once: the base model, two results, and room
PACKAGES = ("torch", "transformers", "peft", "safetensors")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merge", description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=list(MODEL_BYTES), default="phi3-mini", help="of the model")
    shape = parser.parse_args().shape
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        with tempfile.TemporaryDirectory(prefix="tunepress-") as scratch:
            measured = measure(console, Path(scratch), shape)
        console.print(table(measured))
        console.print(sentence(measured["compared"]))
        if shape != "tiny":
            write_json(RESULTS, {**circumstances(PACKAGES), **measured})
            console.print(f"written to {RESULTS}")
    except InputError as error:
        sys.exit(f"benchmarks.merge: {error}")
    except KeyboardInterrupt:
        sys.exit("benchmarks.merge: interrupted")


def measure(console: Console, scratch: Path, shape: str) -> dict[str, Any]:
    """Runs the contenders.

    Args:
        console: where progress shows.
        scratch: a temporary folder.
        shape: of MODEL_BYTES.

    Returns:
        `load_at_start` of the machine, `shape`, what was `made`, `imports_peak_memory_mb` of Python with torch, the figures
        of the `contenders`, and how the two results `compared`.
    """
    check_disk(scratch, FOLDERS * MODEL_BYTES[shape])
    load = load_at_start(console)
    with console.status("making the model and the adapter"):
        made = child("models", scratch, shape)
    imports = child("imports", scratch)["peak_memory_mb"]
    contenders = {}
    for name in CONTENDERS:
        with console.status(name):
            os.sync()
            contenders[name] = child(name, scratch)
            remove(scratch / "copied")
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


def check_disk(scratch: Path, wanted: float) -> None:
    """Raises InputError where a folder has less room than so many bytes."""
    free = shutil.disk_usage(scratch).free
    if free < wanted:
        raise InputError(
            f"{scratch.parent}: {free / 1e9:.1f} GB free, {wanted / 1e9:.0f} GB wanted; set TMPDIR to another folder"
        )


def child(task: str, scratch: Path, *arguments: str, contender: str = "benchmarks.merge_contender") -> dict[str, Any]:
    """What a task of a module of contenders reported, and what its process took; the stage's kernels are pinned."""
    report = scratch / "report.json"
    variables = environment(scratch, kernels=task == "tunepress")
    used = run(task, scratch, variables, sys.executable, "-m", contender, report, task, *arguments)
    return {
        **read_json(report),
        "process_seconds": round(used.seconds, 2),
        "cpu_seconds": round(used.cpu_seconds, 2),
        "peak_memory_mb": used.peak_memory_mb,
    }


def table(measured: dict[str, Any]) -> Table:
    """One line for each contender."""
    made = measured["made"]
    columns = Table(title=f"{made['parameters'] / 1e6:,.2f} M parameters in {made['files']} files, adapter r={made['r']}")
    columns.add_column("contender", no_wrap=True)
    for name in ("process", "of copy", "work", "cores\nbusy", "peak\nmemory", "over Python\nwith torch"):
        columns.add_column(name, justify="right", no_wrap=True)
    imports, copying = measured["imports_peak_memory_mb"], measured["contenders"]["copy"]["process_seconds"]
    for name, one in measured["contenders"].items():
        columns.add_row(
            name,
            f"{one['process_seconds']:.1f} s",
            f"{one['process_seconds'] / copying:.2f}",
            f"{one['work_seconds']:.1f} s",
            f"{one['cpu_seconds'] / one['process_seconds']:.2f}",
            f"{one['peak_memory_mb'] / 1000:.2f} GB",
            f"{(one['peak_memory_mb'] - imports) / 1000:.2f} GB" if name != "copy" else "-",
        )
    return columns


def sentence(compared: dict[str, Any]) -> str:
    """How the results differ."""
    shares = f"{compared['equal']:.2%} of {compared['values']:,} values are peft's own, {compared['within_a_step']:.4%}"
    size = f"{compared['largest']:.2g}, where the largest value is {compared['largest_value']:.2g}"
    return f"{shares} within a step of bfloat16; the largest difference is {size}"


if __name__ == "__main__":
    main()
