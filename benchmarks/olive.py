"""Measures the whole way from an olive-config.json to an int4 model: imported into this project, and run by Olive 0.13.0.

    python -m benchmarks.olive                                       # one seed; some half an hour on two cores
    python -m benchmarks.olive --seeds 0,1,2                         # accuracy over three trainings each
    python -m benchmarks.olive --rows 48 --test-rows 24 --steps 2    # to see that it works

Both are given the same file, the same rows in the same order, the model in models/base and, by that file, the same parameters:
LoRA, MergeAdapterWeights, ModelBuilder int4. Olive runs in an environment of its own (benchmarks/olive.txt). What is committed in
this project is cloned, the file imported with tools/olive, and run with `dvc exp run`. Olive learns the prompts along with
the answers, and so does the imported experiment.

- train, merge, build: seconds of the step without the imports of a stage's process; train reads the rows too.
- whole: seconds of the command with all imports, for Tunepress also with DVC and the copy of the base model.
- peak memory: largest resident size of a process of the command.
- merged, int4: share of the test rows whose greedy answer begins with the right label (benchmarks/score.py). peft merges the
  adapters of both, and both int4 models run in this project's onnxruntime-genai. Over all seeds, with Wilson's 95% interval.
- two runs: whether a second run in a new folder gives the same bytes.
- edited row: whether the same command, after the words of one training row have changed, gives another adapter; and its seconds.

The last two, and all seconds and bytes, are those of the first seed. The figures also go to benchmarks/results/olive.json;
those of other rows than the default's do not.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from benchmarks import olive_config
from benchmarks.children import ROOT, environment, read_json, run
from benchmarks.circumstances import circumstances, load_at_start
from benchmarks.olive_config import Task
from benchmarks.olive_contenders import CONTENDERS, Contender, Outcome
from tunepress.core.errors import InputError
from tunepress.core.files import size_mb, write_json
from tunepress.core.paths import ADAPTER, BASE, PREPARED

RESULTS = Path(__file__).resolve().parent / "results" / "olive.json"
ROWS, TEST_ROWS = 900, 240
PACKAGES = ("torch", "transformers", "peft", "onnxruntime", "onnxruntime-genai", "dvc")
LEVEL = 0.95

Figures = dict[str, Any]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.olive", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS, help="to train on (default: %(default)s)")
    parser.add_argument("--test-rows", type=int, default=TEST_ROWS, help="to answer (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="end each training after so many steps, for a quick check")
    parser.add_argument("--seeds", type=numbers, default="0", help="of the trainings, such as 0,1,2 (default: %(default)s)")
    parser.add_argument("--model", type=Path, default=ROOT / BASE, help="folder of the base model (default: models/base)")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 170, highlight=False)
    task = Task(given.model, given.rows, given.test_rows, given.steps)
    try:
        task.check()
        load = load_at_start(console)
        with tempfile.TemporaryDirectory(prefix="tunepress-") as scratch:
            results = measure(task, given.seeds, Path(scratch), console)
    except InputError as error:
        sys.exit(f"benchmarks.olive: {error}")
    except KeyboardInterrupt:
        sys.exit("benchmarks.olive: interrupted")
    console.print(table(results, task, given.seeds))
    for sentence in sentences(results):
        console.print(sentence)
    if task == Task(ROOT / BASE, ROWS, TEST_ROWS, None):
        told = {"load_at_start": load, "seeds": given.seeds, "rows": task.rows, "contenders": results}
        write_json(RESULTS, {**circumstances(PACKAGES, "olive"), **told})
        console.print(f"written to {RESULTS.relative_to(ROOT)}")


def numbers(text: str) -> list[int]:
    """Seeds of a command line."""
    return [int(number) for number in text.split(",")]


def measure(task: Task, seeds: Sequence[int], scratch: Path, console: Console) -> dict[str, Figures]:
    """Lets both contenders work, seed by seed."""
    results: dict[str, Figures] = {name: {"right": {"merged": 0, "int4": 0}, "test_rows": 0} for name in CONTENDERS}
    for seed in seeds:
        given = scratch / f"given-{seed}"
        olive_config.write(task, seed, given)
        for name, contender in CONTENDERS.items():
            folder = scratch / f"{name}-{seed}"
            with console.status(f"{contender.title}, seed {seed}"):
                outcome = contender.run(folder, given, scratch)
            with console.status(f"{contender.title}, seed {seed}: answering the test rows"):
                score(outcome, results[name], scratch / f"tunepress-{seed}/project", scratch / f"score-{name}-{seed}", task)
            if seed == seeds[0]:
                with console.status(f"{contender.title}: once more, and with an edited row"):
                    results[name] |= taken(outcome) | repeated(contender, outcome, folder, given, scratch)
    return results


def score(outcome: Outcome, one: Figures, prepared_in: Path, folder: Path, task: Task) -> None:
    """Adds an outcome's right answers to a contender's figures.

    Args:
        outcome: its models.
        one: the figures.
        prepared_in: a project whose prepared test rows are asked, for both contenders the same.
        folder: a new folder, laid out like the project.
        task: whose base model the adapter is for.
    """
    links = {
        BASE: task.model.resolve(),
        ADAPTER: outcome.adapter,
        PREPARED: prepared_in / PREPARED,
        Path("params.yaml"): prepared_in / "params.yaml",
    }
    for place, target in links.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).symlink_to(target)
    asked = (sys.executable, "-m", "benchmarks.score", "score.json")
    for what, more in {"merged": [], "int4": [outcome.onnx]}.items():
        if None in more:
            one["right"].pop(what, None)
            continue
        run(f"{what} accuracy", folder, environment(folder, kernels=True), *asked, *map(str, more))
        answered = read_json(folder / "score.json")
        one["right"][what] += answered["right"]
    one["test_rows"] += answered["test_rows"]


def taken(outcome: Outcome) -> Figures:
    """What a run took."""
    return {
        "seconds": {step: round(seconds, 2) for step, seconds in outcome.seconds.items()},
        "whole_seconds": round(outcome.usage.seconds, 2),
        "cpu_seconds": round(outcome.usage.cpu_seconds, 2),
        "peak_memory_mb": outcome.usage.peak_memory_mb,
        "size_mb": size_mb(outcome.onnx) if outcome.onnx else None,
        "error": outcome.error,
    }


def repeated(contender: Contender, first: Outcome, folder: Path, given: Path, scratch: Path) -> Figures:
    """Runs once more in a new folder, and in the first folder after an edit of a row."""
    before = first.hashes()
    second = contender.run(folder.with_name(f"{folder.name}-again"), given, scratch).hashes()
    after = contender.again(folder, scratch)
    return {
        "same_bytes": {name: before[name] == second.get(name) for name in before},
        "edit_noticed": after.hashes()["adapter"] != before["adapter"],
        "edit_seconds": round(after.usage.seconds, 2),
    }


def table(results: dict[str, Figures], task: Task, seeds: Sequence[int]) -> Table:
    """One line for each contender."""
    length = f"{task.steps} steps" if task.steps else "1 epoch"
    columns = Table(title=f"{length} of {task.rows} rows, {task.test_rows} test rows, {len(seeds)} seeds, {os.cpu_count()} cores")
    columns.add_column("contender", no_wrap=True)
    for name in ("train", "merge", "build", "whole", "peak\nmemory", "size", "merged", "int4"):
        columns.add_column(name, justify="right", no_wrap=True)
    for name in ("two runs", "edited row"):
        columns.add_column(name, no_wrap=True)
    for name, one in results.items():
        steps = [f"{one['seconds'][step]:.0f} s" if step in one["seconds"] else "failed" for step in ("train", "merge", "build")]
        columns.add_row(
            CONTENDERS[name].title,
            *steps,
            f"{one['whole_seconds']:.0f} s",
            f"{one['peak_memory_mb'] / 1000:.2f} GB",
            f"{one['size_mb']:.0f} MB" if one["size_mb"] else "-",
            *(accuracy(one, what) for what in ("merged", "int4")),
            agreement(one["same_bytes"]),
            f"{'noticed' if one['edit_noticed'] else 'not noticed'}\n{one['edit_seconds']:.0f} s",
        )
    return columns


def agreement(same_bytes: dict[str, bool]) -> str:
    """Which of the files that two runs made are the same."""
    return "\n".join(f"{what}: {'same' if same else 'other'} bytes" for what, same in same_bytes.items())


def accuracy(one: Figures, what: str) -> str:
    """A share with its interval."""
    if what not in one["right"]:
        return "-"
    low, high = bounds(one, what)
    return f"{one['right'][what] / one['test_rows']:.3f}\n{low:.3f} to {high:.3f}"


def bounds(one: Figures, what: str) -> tuple[float, float]:
    """Wilson's interval of a share."""
    interval = binomtest(one["right"][what], one["test_rows"]).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def sentences(results: dict[str, Figures]) -> list[str]:
    """Whether the answers are as good as the peer's, and what kept it from any."""
    ours, peer = results["tunepress"], results["olive"]
    said = [f"Olive built no int4 model: {peer['error']}"] if peer["error"] else []
    for what in ("merged", "int4"):
        if what in peer["right"]:
            share, (low, high) = ours["right"][what] / ours["test_rows"], bounds(peer, what)
            where = "below" if share < low else "above" if share > high else "within"
            said.append(f"Tunepress's {what} accuracy of {share:.3f} is {where} the peer's interval of {low:.3f} to {high:.3f}.")
    return said


if __name__ == "__main__":
    main()
