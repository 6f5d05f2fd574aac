"""Measures the merge: this project's stage, peft, and a copy of the same files, on one model in the same run.

    python -m benchmarks.merge                    # some five minutes on two cores, and 31 GB of disk below TMPDIR
    python -m benchmarks.merge --shape tiny       # to see that it works

The model has random weights in Phi-3-mini's shape (3.8 billion parameters, bfloat16, files of up to 5 GB as in the real one), the
adapter r=64 on each linear layer but the head, in float32 as training leaves it. Contenders run one after the other, each in a
process of its own, after everything that was written before has reached the disk:

- copy: shutil.copyfile of the base model's files. No merge that leaves them as they are can be faster.
- tunepress: the stage merge, with the tokenizer and what else it writes.
- peft: from_pretrained, merge_and_unload and save_pretrained. Its check for NaN (safe_merge), which the stage makes too, would
  cost it more time and memory.

The columns:

- process: seconds from start to end, with imports.
- work: seconds without the imports.
- cores busy: CPU time of the process divided by its seconds.
- peak memory: largest resident size of the process; and how much of it is more than Python's with torch imported.

Then both results are compared, value by value: both round once, from sums in float32 whose last bits may differ.
"""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, check_disk, cores_busy, gigabytes, large_model, main, table
from benchmarks.models import SHAPES, add_shape
from benchmarks.processes import Figures

CONTENDERS = ("copy", "tunepress", "peft")
FOLDERS = 4  # models on the disk at once: the base model, two results, and room
COLUMNS = ("contender", "process", "of copy", "work", "cores\nbusy", "peak\nmemory", "over Python\nwith torch")


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Runs the contenders."""
    check_disk(scratch, FOLDERS * SHAPES[options.shape].model_bytes)
    return large_model("benchmarks.merge.contender", CONTENDERS, options.shape, scratch, console)


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """One line for each contender, and how the results differ."""
    made, copying = measured["made"], measured["contenders"]["copy"]["process_seconds"]
    title = f"{made['parameters'] / 1e6:,.2f} M parameters in {made['files']} files, adapter r={made['r']}"
    rows = [
        (
            name,
            f"{figures['process_seconds']:.1f} s",
            f"{figures['process_seconds'] / copying:.2f}",
            f"{figures['work_seconds']:.1f} s",
            cores_busy(figures),
            gigabytes(figures["peak_memory_mb"]),
            gigabytes(figures["peak_memory_mb"] - measured["imports_peak_memory_mb"]) if name != "copy" else "-",
        )
        for name, figures in measured["contenders"].items()
    ]
    yield table(title, COLUMNS, rows)
    compared = measured["compared"]
    shares = f"{compared['equal']:.2%} of {compared['values']:,} values are equal to peft's, {compared['within_a_step']:.4%}"
    size = f"{compared['largest']:.2g}, where the largest value is {compared['largest_value']:.2g}"
    yield f"{shares} within a step of bfloat16; the largest difference is {size}"


BENCHMARK = Benchmark("merge", __doc__, ("torch", "transformers", "peft", "safetensors"), measure, report, add_options=add_shape)

if __name__ == "__main__":
    main(BENCHMARK)
