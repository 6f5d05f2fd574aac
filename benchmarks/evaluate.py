"""Measures the stage evaluate against the loop that one would write first, on the same rows with the same model.

    python -m benchmarks.evaluate                 # after `make repro`; some eight minutes on two cores
    python -m benchmarks.evaluate --rows 16       # to see that it works

Both find the greedy answers, the likeliest label of each row and the perplexity of the expected answers, for merged in torch and
for onnx in onnxruntime-genai; each contender runs in a process of its own, with the stage's kernels.

- stage: prompts of one length together (in torch), a prompt computed once for all labels, logits of the labels' tokens alone.
- loop: a row after the other, and each label behind its prompt from the start, with the logits of every token.

- work: seconds behind the loading of model and runtime.
- peak memory: largest resident size of the process.
- same: rows with the same answer, and those with the same likeliest label, in both.

The figures of all rows also go to benchmarks/results/evaluate.json.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import merge
from benchmarks.children import ROOT
from benchmarks.circumstances import circumstances, load_at_start
from tunepress.core.errors import InputError
from tunepress.core.files import write_json
from tunepress.core.paths import MERGED, ONNX, PREPARED

RESULTS = Path(__file__).resolve().parent / "results" / "evaluate.json"
CANDIDATES = {"merged": MERGED, "onnx": ONNX}
CONTENDERS = ("stage", "loop")
PACKAGES = ("torch", "transformers", "onnxruntime", "onnxruntime-genai")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, help="the first so many; without it all")
    rows = parser.parse_args().rows
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        with tempfile.TemporaryDirectory(prefix="tunepress-") as scratch:
            measured = measure(console, Path(scratch), rows)
        console.print(table(measured))
        if rows is None:
            write_json(RESULTS, {**circumstances(PACKAGES), **measured})
            console.print(f"written to {RESULTS}")
    except InputError as error:
        sys.exit(f"benchmarks.evaluate: {error}")
    except KeyboardInterrupt:
        sys.exit("benchmarks.evaluate: interrupted")


def measure(console: Console, scratch: Path, rows: int | None) -> dict[str, Any]:
    """Runs both contenders on both candidates.

    Returns:
        `load_at_start` of the machine, the number of `rows`, and for each candidate what each contender took and how many
        `same_answers` and `same_top_labels` they have.
    """
    for part in (*CANDIDATES.values(), PREPARED):
        if not (ROOT / part).exists():
            raise InputError(f"{part}: not found; run `make repro`")
        (scratch / part).parent.mkdir(exist_ok=True)
        (scratch / part).symlink_to(ROOT / part)
    child = partial(merge.child, contender="benchmarks.evaluate_contender")
    limit = [str(rows)] if rows else []
    measured: dict[str, Any] = {"load_at_start": load_at_start(console)}
    for candidate in CANDIDATES:
        found = {}
        for name in CONTENDERS:
            with console.status(f"{candidate}, {name}"):
                found[name] = child(name, scratch, candidate, *limit)
        first, second = (found[name].pop("found") for name in CONTENDERS)
        measured["rows"] = len(first["answers"])
        same = {f"same_{key}": sum(map(str.__eq__, first[key], second[key])) for key in ("answers", "top_labels")}
        measured[candidate] = {**found, **same}
    return measured


def table(measured: dict[str, Any]) -> Table:
    """One line for each candidate and contender."""
    columns = Table(title=f"evaluation of {measured['rows']} rows")
    for name in ("candidate", "contender"):
        columns.add_column(name, no_wrap=True)
    for name in ("work", "of loop", "process", "peak\nmemory", "perplexity", "same\nanswers", "same\ntop labels"):
        columns.add_column(name, justify="right", no_wrap=True)
    for candidate in CANDIDATES:
        whole = measured[candidate]
        for name in CONTENDERS:
            one = whole[name]
            columns.add_row(
                candidate,
                name,
                f"{one['work_seconds']:.1f} s",
                f"{one['work_seconds'] / whole['loop']['work_seconds']:.2f}",
                f"{one['process_seconds']:.1f} s",
                f"{one['peak_memory_mb'] / 1000:.2f} GB",
                f"{one['perplexity']:.4f}",
                f"{whole['same_answers']}",
                f"{whole['same_top_labels']}",
            )
    return columns


if __name__ == "__main__":
    main()
