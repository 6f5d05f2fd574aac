"""Prints what the last run measured: the table at the end of `make repro`."""

import json
import sys

from rich.console import Console
from rich.table import Table

from stages.gate import broken_bounds
from stages.report.figures import CANDIDATES, TIMED, Run
from stages.report.tables import figure
from tunepress.core.errors import InputError
from tunepress.core.files import size_mb
from tunepress.core.paths import BASE, MERGED, ONNX, TIMINGS
from tunepress.core.pipeline import commands
from tunepress.remote.collected import LISTS

FOLDERS = dict(zip(CANDIDATES, (BASE, MERGED, ONNX), strict=True))


def main() -> None:
    """The command line."""
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    try:
        run = Run.read()
    except InputError as error:
        sys.exit(str(error))
    console.print(table(run))
    console.print(sentence(run))
    console.print(agreement(run))
    if run.retained:
        console.print(retained(run))
    if "tool_call_accuracy" in run.evaluate["onnx"]:
        console.print(calls(run))
    seconds = timings()
    if seconds:
        console.print(f"Seconds of the last runs: {seconds}")
    if message := broken_bounds():  # `dvc repro` has said so already, but not of an experiment that was taken over
        sys.exit(message)


def table(run: Run) -> Table:
    """One line for each baseline and candidate."""
    columns = Table(title=run.rows)
    level = f"{run.evaluate['onnx']['confidence_level']:.0%} interval"
    for name in ("model", run.score, level, *run.names[1:], "size on disk", "tokens/s"):
        columns.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    for name in run.baselines:
        low, high = run.interval(name)
        rest = [f"{run.baselines[name][key]:.3f}" if key in run.baselines[name] else "-" for key in run.names[1:]]
        size = f"{run.baseline_speeds[name]['size_mb']:.0f} MB"
        columns.add_row(name, f"{run.score_of(name):.3f}", f"{low:.3f} to {high:.3f}", *rest, size, "-")
    for name, figures in run.evaluate.items():
        low, high = run.interval(name)
        rest = ["-" if run.by_likelihood(name) else f"{figures[key]:.3f}" for key in run.names[1:]]
        size = f"{size_mb(FOLDERS[name]):.0f} MB" if FOLDERS[name].exists() else "-"
        speed = f"{run.tokens_per_second(name):.1f}" if name in TIMED else "-"
        columns.add_row(name, f"{run.score_of(name):.3f}", f"{low:.3f} to {high:.3f}", *rest, size, speed)
    if run.by_likelihood("base"):
        columns.caption = "base, which has not learned to answer with a label, is measured by its most likely label"
    return columns


def calls(run: Run) -> str:
    """The share of function calls that each model has right."""
    right = ", ".join(f"{name} {figures['tool_call_accuracy']:.3f}" for name, figures in run.evaluate.items())
    return f"Function calls with the right name and arguments: {right} of {run.evaluate['onnx']['tool_calls']:,}."


def sentence(run: Run) -> str:
    """What the precision of the ONNX model cost."""
    points = run.drop * 100
    change = "changed nothing" if not points else f"{'lost' if points > 0 else 'gained'} {abs(points):.1f} points"
    return f"{run.build['precision']} for {run.build['execution_provider']} {change} of {run.score} against merged."


def agreement(run: Run) -> str:
    """How like the two models are, in answers and in tokens."""
    compared = run.compare
    return (
        f"They answer {compared['changed']} of {compared['rows']} rows differently (paired test: p = {compared['p_value']:.2g}) "
        f"and agree on {compared['top1_agreement']:.1%} of the tokens."
    )


def retained(run: Run) -> str:
    """What the models know of other subjects."""
    values = "; ".join(f"{name} {' / '.join(map(figure, values))}" for name, values in run.retained.items())
    return f"Other subjects, {' / '.join(CANDIDATES)}: {values}."


def timings() -> str:
    """Seconds of each stage's last run on this machine."""
    files = [TIMINGS / f"{stage.replace('@', '_')}.json" for stage in commands(LISTS)]
    return ", ".join(f"{file.stem} {json.loads(file.read_text())['seconds']:.0f}" for file in files if file.exists())


if __name__ == "__main__":
    main()
