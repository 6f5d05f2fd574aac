"""What every benchmark shares: the command line, the table, the results file, and errors in one line.

The figures go to results/<name>.json, the source of the tables in docs/, where every option has its default; otherwise only where
`--output FILE` asks for it.
"""

import argparse
import datetime
import os
import platform
import shutil
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from benchmarks.processes import ROOT, Figures, call, pins
from tunepress.core.errors import InputError
from tunepress.core.files import remove, write_json

RESULTS = Path(__file__).resolve().parent / "results"
BUSY = 0.7  # load of the last minute at which another process must be running


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as `main` runs it."""

    name: str  # of its module and of its results
    documentation: str | None  # what --help prints
    packages: Sequence[str]  # their versions are kept with the figures
    measure: Callable[[Namespace, Path, Console], Figures]  # takes a temporary folder and a console for progress
    report: Callable[[Figures, Namespace], Iterable[RenderableType]]  # what is printed
    add_options: Callable[[ArgumentParser], Any] = lambda parser: None
    check: Callable[[Namespace], Any] = lambda options: None  # raises InputError where the options cannot be measured
    failure: Callable[[Figures], str | None] = lambda figures: None  # why the command fails although there are figures
    peer: str | None = None  # a tool with its own environment, whose versions are kept too
    recorded: Sequence[str] = ()  # options with which results/ is written whatever their value
    width: int = 120  # of the output, where it is not a terminal

    def write(self, file: Path, figures: Figures) -> None:
        """Writes figures with the circumstances they were measured in."""
        write_json(file, {**circumstances(self.packages, self.peer), **figures})


def main(benchmark: Benchmark, arguments: Sequence[str] | None = None) -> None:
    """Runs a benchmark from the command line."""
    options = parse(benchmark, arguments)
    console = Console(width=None if sys.stdout.isatty() else benchmark.width, highlight=False)
    try:
        benchmark.check(options)
        load = load_at_start(console)
        with tempfile.TemporaryDirectory(prefix="tunepress-") as scratch:
            figures = {"load_at_start": load, **benchmark.measure(options, Path(scratch), console)}
        for part in benchmark.report(figures, options):
            console.print(part)
        if options.output:
            benchmark.write(options.output, figures)
            file = options.output.resolve()
            console.print(f"written to {file.relative_to(ROOT) if file.is_relative_to(ROOT) else file}")
        failure = benchmark.failure(figures)
    except InputError as error:
        failure = str(error)
    except KeyboardInterrupt:
        failure = "interrupted"
    if failure:
        sys.exit(f"benchmarks.{benchmark.name}: {failure}")


def parse(benchmark: Benchmark, arguments: Sequence[str] | None = None) -> Namespace:
    """The options; `output` is None where the figures are not kept."""
    parser = ArgumentParser(
        prog=f"python -m benchmarks.{benchmark.name}",
        description=benchmark.documentation,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    benchmark.add_options(parser)
    kept = "without it only a run with the default options is kept, in benchmarks/results/"
    parser.add_argument("--output", "--results", type=Path, metavar="FILE", help=f"where the figures go as JSON; {kept}")
    options = parser.parse_args(arguments)
    changed = {name for name, value in vars(options).items() if value != parser.get_default(name)}
    if not changed - set(benchmark.recorded) - {"output"}:
        options.output = options.output or RESULTS / f"{benchmark.name}.json"
    return options


def numbers(text: str) -> list[int]:
    """Whole numbers with commas between them, as in `--seeds 0,1,2`."""
    return [int(number) for number in text.split(",")]


def circumstances(packages: Sequence[str], peer: str | None = None) -> Figures:
    """Date, machine, and versions of this environment's packages and of another tool's."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        **({f"{peer}_packages": pins(peer)} if peer else {}),
    }


def cpu_name() -> str:
    """As the kernel names it on Linux, as Python does elsewhere."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def load_at_start(console: Console) -> float:
    """The machine's load of the last minute, with a warning where it is too high to measure anything."""
    load = os.getloadavg()[0]
    if load > BUSY:
        console.print(f"The machine is busy (load {load:.1f}): these are not the figures of a quiet machine.")
    return load


def check_disk(scratch: Path, needed: float) -> None:
    """Raises InputError where there is less room than `needed` bytes."""
    free = shutil.disk_usage(scratch).free
    if free < needed:
        raise InputError(f"{scratch.parent}: {free / 1e9:.1f} GB free, needs {needed / 1e9:.0f} GB; set TMPDIR to another folder")


def large_model(module: str, contenders: Sequence[str], shape: str, scratch: Path, console: Console) -> Figures:
    """Makes a random model and an adapter, and lets contenders work on it, each in a process of its own with the pinned kernels.

    The contenders, which return `work_seconds`, and `compare` are functions of `module`.
    """

    def task(function: str, **arguments: Any) -> Figures:
        figures, usage = call(function, scratch, kernels=True, **arguments)
        return {**figures, **usage.figures()}

    with console.status("making the model and the adapter"):
        made = task("benchmarks.models:base_and_adapter", shape=shape)
    imports = task("benchmarks.models:import_torch")["peak_memory_mb"]
    measured = {}
    for name in contenders:
        with console.status(name):
            os.sync()  # nothing that was written before is still on its way to the disk
            measured[name] = task(f"{module}:{name}")
            remove(scratch / "copied")
    with console.status("comparing"):
        compared = task(f"{module}:compare")
    return {"shape": shape, "made": made, "imports_peak_memory_mb": imports, "contenders": measured, "compared": compared}


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, **style: Any) -> Table:
    """A table whose first columns, `left` of them, are text and whose other columns are numbers."""
    made = Table(title=title, **style)
    for number, column in enumerate(columns):
        made.add_column(column, justify="left" if number < left else "right", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def gigabytes(megabytes: float) -> str:
    """Memory as a table shows it."""
    return f"{megabytes / 1000:.2f} GB"


def cores_busy(usage: Figures) -> str:
    """CPU time of a process divided by its seconds."""
    return f"{usage['cpu_seconds'] / usage['process_seconds']:.2f}"
