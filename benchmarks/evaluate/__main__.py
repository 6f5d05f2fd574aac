"""Measures the stage evaluate against a plain loop, on the same rows with the same model.

    python -m benchmarks.evaluate                 # after `make repro`; some eight minutes on two cores
    python -m benchmarks.evaluate --rows 16       # to see that it works

Both find the greedy answers, the most likely label of each row and the perplexity of the expected answers, for merged in torch
and for onnx in onnxruntime-genai. Each contender runs in a process of its own, with the stage's kernels:

- stage: prompts of one length together (in torch), a prompt computed once for all labels, logits of the labels' tokens only.
- loop: one row after the other, and each label after its prompt from the start, with the logits of every token.

The columns:

- work: seconds after model and runtime are loaded.
- peak memory: largest resident size of the process.
- same: rows with the same answer, and those with the same most likely label, in both.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, gigabytes, main, table
from benchmarks.processes import Figures, call, workspace
from tunepress.core.paths import MERGED, ONNX, PREPARED

CANDIDATES = ("merged", "onnx")
CONTENDERS = ("stage", "loop")
COLUMNS = ("candidate", "contender", "work", "of loop", "process", "peak\nmemory", "perplexity", "same\nanswers", "same\nlabels")


def add_options(parser: ArgumentParser) -> None:
    """Adds --rows."""
    parser.add_argument("--rows", type=int, metavar="N", help="only the first N test rows")


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Runs both contenders on both candidates."""
    workspace(scratch, MERGED, ONNX, PREPARED)
    measured: Figures = {}
    for candidate in CANDIDATES:
        contenders, results = {}, []
        for name in CONTENDERS:
            with console.status(f"{candidate}, {name}"):
                function = f"benchmarks.evaluate.contender:{name}"
                figures, usage = call(function, scratch, kernels=True, candidate=candidate, limit=options.rows)
            results.append(figures.pop("results"))
            contenders[name] = {**figures, **usage.figures()}
        measured["rows"] = len(results[0]["answers"])
        same = {f"same_{key}": sum(map(str.__eq__, *(result[key] for result in results))) for key in ("answers", "labels")}
        measured[candidate] = {**contenders, **same}
    return measured


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """One line for each candidate and contender."""
    rows = [
        (
            candidate,
            name,
            f"{figures['work_seconds']:.1f} s",
            f"{figures['work_seconds'] / measured[candidate]['loop']['work_seconds']:.2f}",
            f"{figures['process_seconds']:.1f} s",
            gigabytes(figures["peak_memory_mb"]),
            f"{figures['perplexity']:.4f}",
            str(measured[candidate]["same_answers"]),
            str(measured[candidate]["same_labels"]),
        )
        for candidate in CANDIDATES
        for name, figures in ((name, measured[candidate][name]) for name in CONTENDERS)
    ]
    yield table(f"evaluation of {measured['rows']} rows", COLUMNS, rows, left=2)


BENCHMARK = Benchmark(
    "evaluate", __doc__, ("torch", "transformers", "onnxruntime", "onnxruntime-genai"), measure, report, add_options
)

if __name__ == "__main__":
    main(BENCHMARK)
