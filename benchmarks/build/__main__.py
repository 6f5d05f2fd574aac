"""Measures the int4 build: this project's stage and the builder alone, on one model in the same run.

    python -m benchmarks.build                    # some ten minutes on two cores, 23 GB of memory and 17 GB of disk below TMPDIR
    python -m benchmarks.build --shape tiny       # to see that it works

The model is that of benchmarks.merge: random weights in Phi-3-mini's shape, in bfloat16. Both make the builder's default int4
model for CPU, each in a process of its own:

- tunepress: stages.build.stage.build, which rounds tensor by tensor and hands the builder a checkpoint.
- builder: onnxruntime-genai's builder on the model's folder.

The columns are those of benchmarks.merge. Then the two graphs are compared node by node, with their constants.
"""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, check_disk, cores_busy, gigabytes, large_model, main, table
from benchmarks.models import SHAPES, add_shape
from benchmarks.processes import Figures

CONTENDERS = ("tunepress", "builder")
FOLDERS = 2.2  # models on the disk at once, with both results
COLUMNS = ("contender", "process", "work", "cores\nbusy", "peak\nmemory", "over Python\nwith torch", "size on disk")


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Runs the contenders."""
    check_disk(scratch, FOLDERS * SHAPES[options.shape].model_bytes)
    return large_model("benchmarks.build.contender", CONTENDERS, options.shape, scratch, console)


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """One line for each contender, and how many nodes are equal."""
    rows = [
        (
            name,
            f"{figures['process_seconds']:.1f} s",
            f"{figures['work_seconds']:.1f} s",
            cores_busy(figures),
            gigabytes(figures["peak_memory_mb"]),
            gigabytes(figures["peak_memory_mb"] - measured["imports_peak_memory_mb"]),
            f"{figures['size_mb']:,.1f} MB",
        )
        for name, figures in measured["contenders"].items()
    ]
    yield table(f"{measured['made']['parameters'] / 1e6:,.2f} M parameters to int4", COLUMNS, rows)
    yield f"{measured['compared']['equal']} of {measured['compared']['nodes']} nodes are equal to the builder's"


BENCHMARK = Benchmark(
    "build", __doc__, ("torch", "transformers", "onnxruntime", "onnxruntime-genai"), measure, report, add_options=add_shape
)

if __name__ == "__main__":
    main(BENCHMARK)
