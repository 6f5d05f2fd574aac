"""Measures the whole way from an olive-config.json to an int4 model: imported into this project, and run by Olive 0.13.0.

    python -m benchmarks.olive                                       # one seed; some half an hour on two cores
    python -m benchmarks.olive --seeds 0,1,2                         # accuracy over three trainings each
    python -m benchmarks.olive --rows 48 --test-rows 24 --steps 2    # to see that it works

Both get the same file, the same rows in the same order, the model in models/base and, by that file, the same parameters:
LoRA, MergeAdapterWeights, ModelBuilder int4. Olive runs in its own environment (benchmarks/olive/olive.txt). What is committed in
this project is cloned, the file imported with tools/olive, and run with `dvc exp run`. Olive learns the prompts along with
the answers, and so does the imported experiment.

- train, merge, build: seconds of the step without the imports of a stage's process; train reads the rows too.
- whole: seconds of the command with all imports, for Tunepress also with DVC and the copy of the base model.
- peak memory: largest resident size of a process of the command.
- merged, int4: share of the test rows whose greedy answer begins with the right label (benchmarks/score.py). peft merges the
  adapters of both, and both int4 models run in this project's onnxruntime-genai. Over all seeds, with Wilson's 95% interval.
- two runs: whether a second run in a new folder gives the same bytes.
- edited row: whether the same command, after the words of one training row have changed, gives another adapter; and its seconds.

The last two, and all seconds and bytes, are those of the first seed.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table

from benchmarks.harness import Benchmark, gigabytes, main, numbers, table
from benchmarks.olive import config
from benchmarks.olive.config import Task
from benchmarks.olive.contenders import CONTENDERS, Contender, Outcome
from benchmarks.processes import ROOT, Figures, call
from tunepress.core.files import size_mb
from tunepress.core.paths import ADAPTER, BASE, PREPARED
from tunepress.inference.metrics import wilson_bounds

LEVEL = 0.95
STEPS = ("train", "merge", "build")
COLUMNS = ("contender", *STEPS, "whole", "peak\nmemory", "size", "merged", "int4", "two runs", "edited row")


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=900, metavar="N", help="to train on (default: %(default)s)")
    parser.add_argument("--test-rows", type=int, default=240, metavar="N", help="to answer (default: %(default)s)")
    parser.add_argument("--steps", type=int, metavar="N", help="end each training after N steps, for a quick check")
    parser.add_argument("--seeds", type=numbers, default=[0], metavar="N,N", help="of the trainings (default: 0)")
    parser.add_argument("--model", type=Path, default=ROOT / BASE, help="folder of the base model (default: models/base)")


def task_of(options: Namespace) -> Task:
    return Task(options.model, options.rows, options.test_rows, options.steps)


def check(options: Namespace) -> None:
    task_of(options).check()


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Lets both contenders work, seed by seed."""
    task, seeds = task_of(options), options.seeds
    results: dict[str, Figures] = {name: {"right": {"merged": 0, "int4": 0}, "test_rows": 0} for name in CONTENDERS}
    for seed in seeds:
        inputs = scratch / f"inputs-{seed}"
        config.write(task, seed, inputs)
        for name, contender in CONTENDERS.items():
            folder = scratch / f"{name}-{seed}"
            with console.status(f"{contender.title}, seed {seed}"):
                outcome = contender.run(folder, inputs, scratch)
            with console.status(f"{contender.title}, seed {seed}: answering the test rows"):
                score(outcome, results[name], scratch / f"tunepress-{seed}/project", scratch / f"score-{name}-{seed}", task)
            if seed == seeds[0]:
                with console.status(f"{contender.title}: a second run, and one with an edited row"):
                    results[name] |= figures(outcome) | repeated(contender, outcome, folder, inputs, scratch)
    return {"seeds": seeds, "rows": task.rows, "contenders": results}


def score(outcome: Outcome, figures: Figures, project: Path, folder: Path, task: Task) -> None:
    """Adds an outcome's right answers to a contender's figures, in a new folder laid out like the project.

    Both contenders answer the test rows that are prepared in `project`.
    """
    links = {
        BASE: task.model.resolve(),
        ADAPTER: outcome.adapter,
        PREPARED: project / PREPARED,
        Path("params.yaml"): project / "params.yaml",
    }
    for place, target in links.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).symlink_to(target)
    merged, _ = call("benchmarks.score:adapter", folder, kernels=True, title="merged accuracy")
    figures["right"]["merged"] += merged["right"]
    figures["test_rows"] += merged["test_rows"]
    if outcome.onnx is None:
        figures["right"].pop("int4", None)
    else:
        int4, _ = call("benchmarks.score:onnx", folder, kernels=True, title="int4 accuracy", model=str(outcome.onnx))
        figures["right"]["int4"] += int4["right"]


def figures(outcome: Outcome) -> Figures:
    """Time, memory and size of a run."""
    return {
        "seconds": {step: round(seconds, 2) for step, seconds in outcome.seconds.items()},
        "whole_seconds": round(outcome.usage.seconds, 2),
        "cpu_seconds": round(outcome.usage.cpu_seconds, 2),
        "peak_memory_mb": outcome.usage.peak_memory_mb,
        "size_mb": size_mb(outcome.onnx) if outcome.onnx else None,
        "error": outcome.error,
    }


def repeated(contender: Contender, first: Outcome, folder: Path, inputs: Path, scratch: Path) -> Figures:
    """Runs again in a new folder, and in the first folder after an edit of a row."""
    before = first.hashes()
    second = contender.run(folder.with_name(f"{folder.name}-again"), inputs, scratch).hashes()
    after = contender.again(folder, scratch)
    return {
        "same_bytes": {name: before[name] == second.get(name) for name in before},
        "edit_noticed": after.hashes()["adapter"] != before["adapter"],
        "edit_seconds": round(after.usage.seconds, 2),
    }


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """One line for each contender, and sentences."""
    yield contenders_table(measured["contenders"], task_of(options), options.seeds)
    yield from sentences(measured["contenders"])


def contenders_table(results: dict[str, Figures], task: Task, seeds: Sequence[int]) -> Table:
    length = f"{task.steps} steps" if task.steps else "1 epoch"
    title = f"{length} of {task.rows} rows, {task.test_rows} test rows, {len(seeds)} seeds, {os.cpu_count()} cores"
    rows = [
        (
            CONTENDERS[name].title,
            *(f"{figures['seconds'][step]:.0f} s" if step in figures["seconds"] else "failed" for step in STEPS),
            f"{figures['whole_seconds']:.0f} s",
            gigabytes(figures["peak_memory_mb"]),
            f"{figures['size_mb']:.0f} MB" if figures["size_mb"] else "-",
            *(accuracy(figures, model) for model in ("merged", "int4")),
            "\n".join(f"{file}: {'same' if same else 'other'} bytes" for file, same in figures["same_bytes"].items()),
            f"{'noticed' if figures['edit_noticed'] else 'not noticed'}\n{figures['edit_seconds']:.0f} s",
        )
        for name, figures in results.items()
    ]
    return table(title, COLUMNS, rows)


def accuracy(figures: Figures, model: str) -> str:
    """A share with its interval."""
    if model not in figures["right"]:
        return "-"
    low, high = bounds(figures, model)
    return f"{figures['right'][model] / figures['test_rows']:.3f}\n{low:.3f} to {high:.3f}"


def bounds(figures: Figures, model: str) -> tuple[float, float]:
    return wilson_bounds(figures["right"][model], figures["test_rows"], LEVEL)


def sentences(results: dict[str, Figures]) -> Iterator[str]:
    """Why Olive has no int4 model, and whether the answers are as good as Olive's."""
    ours, peer = results["tunepress"], results["olive"]
    if peer["error"]:
        yield f"Olive built no int4 model: {peer['error']}"
    for model in peer["right"]:
        share, (low, high) = ours["right"][model] / ours["test_rows"], bounds(peer, model)
        side = "below" if share < low else "above" if share > high else "within"
        yield f"Tunepress's {model} accuracy of {share:.3f} is {side} Olive's interval of {low:.3f} to {high:.3f}."


BENCHMARK = Benchmark(
    "olive",
    __doc__,
    ("torch", "transformers", "peft", "onnxruntime", "onnxruntime-genai", "dvc"),
    measure,
    report,
    add_options,
    check,
    peer="olive",
    recorded=("seeds",),
    width=170,
)

if __name__ == "__main__":
    main(BENCHMARK)
