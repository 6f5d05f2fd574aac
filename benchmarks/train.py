"""Measures training: this project's stage, transformers' Trainer and Olive's LoRA pass, on the same rows in the same run.

    python -m benchmarks.train                        # tunepress, trainer, olive twice: some fifteen minutes on two cores
    python -m benchmarks.train --contender tunepress --contender trainer --steps 5
    python -m benchmarks.train --profile              # where the time of one step of the stage goes

Contenders run one after the other, each in a process of its own, from the project's params.yaml, models/base and
data/prepared, on the CPU. Training arguments and tokens of the rows are the same, and for stage and Trainer the initial
adapter, the order of the rows and the positions with a loss. Olive creates its adapter before it seeds, learns the prompts
along with the answers, and where it joins rows, its batch size is the one with the most similar number of tokens a step.
It is measured without gradient checkpointing, as the others, and with it, which is its default.
The peers run with the kernels that torch chooses; the stage pins its own (stages/__init__.py), and what that costs a
product shows below the table.

- training: seconds in Trainer.train() without the evaluations in it, which only the stage makes.
- process: seconds from start to end, with imports, loading, the stage's evaluations and saving.
- real tokens/s: tokens of the rows that were trained, epochs included, by seconds of training. Padding does not count, nor
  what Olive puts between rows: its tokens are scaled by (tokens of the rows / tokens of its data set).
- of matrix rate: 4 * active parameters * real tokens/s, by the fastest float32 matrix product measured in this run.
  A product with a weight is 2 FLOPs (multiply, add) per weight and token in the forward pass and 2 more in the backward
  pass, for the gradient of its input; the weights are frozen and need none. Active parameters are all weights but the
  embedding and the head, which is tied to it here. Left out: the head, attention's own products, the adapter (4%) and all
  that is no matrix product. The share is thus what was unavoidable of what was possible; the rest is waste or overhead.
- cores busy: CPU time of the process by its seconds; well below the number of cores where something else was running.
- peak memory: largest resident size of the training process.
- accuracy: share of the test rows whose greedy answer begins with the right label, after peft has merged the adapter.

The figures also go to benchmarks/results/train.json; a shortened run's do not.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from benchmarks.children import ROOT, Usage, environment, read_json, run
from benchmarks.circumstances import circumstances, load_at_start
from benchmarks.contenders import TITLES, Setting, score, train, workspace
from tunepress.core.errors import InputError
from tunepress.core.files import write_json
from tunepress.core.paths import BASE, PREPARED

RESULTS = Path(__file__).resolve().parent / "results" / "train.json"
DEFAULT = ("tunepress", "trainer", "olive", "olive-checkpointing")
FLOPS = 4  # per active parameter and token
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets")
PROFILED = (4, 5)  # steps: the first, and the one after the last; one alone has one number of tokens, so few shapes


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__.splitlines()[0])
    parser.add_argument("--contender", action="append", choices=TITLES, help="only this one; may be repeated")
    parser.add_argument("--steps", type=int, help="end each training after so many steps, for a quick check")
    parser.add_argument("--profile", action="store_true", help="print where the time of one step of the stage goes instead")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)
    try:
        if options.steps is not None and options.steps < 1:
            raise InputError("--steps: must be 1 or more")
        with tempfile.TemporaryDirectory(prefix="tunepress-") as scratch:
            if options.profile:
                profile(console, Path(scratch))
            else:
                measure(console, Path(scratch), options.contender or DEFAULT, options.steps)
    except InputError as error:
        sys.exit(f"benchmarks.train: {error}")
    except KeyboardInterrupt:
        sys.exit("benchmarks.train: interrupted")


def prepare(scratch: Path, steps: int | None) -> Setting:
    """Reads the project's rows and parameters.

    Raises:
        InputError: the pipeline has not run yet, or its recipe is not one that all contenders can train.
    """
    if not (ROOT / BASE / "config.json").exists() or not (ROOT / PREPARED / "train.jsonl").exists():
        raise InputError(f"{BASE} or {PREPARED} is missing; run `make repro` first")
    params: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "params.yaml"))
    if params["train"]["bf16"]:
        raise InputError("params.yaml: train.bf16 is true; the contenders are compared in float32")
    if not params["data"]["labels"]:
        raise InputError("params.yaml: data.labels is null; the contenders are compared by the labels they answer")
    folder = workspace(scratch, "recipe")
    run("the recipe", folder, environment(scratch, kernels=True), sys.executable, "-m", "benchmarks.recipe", scratch)
    return Setting(scratch, params, read_json(scratch / "recipe.json"), steps)


def measure(console: Console, scratch: Path, names: Sequence[str], steps: int | None) -> None:
    """Prints the table and writes the results."""
    load = load_at_start(console)
    with console.status("reading the rows"):
        setting = prepare(scratch, steps)
    with console.status("measuring matrix products"):
        rates = {kernels: matrix_rates(scratch, kernels == "pinned") for kernels in ("free", "pinned")}
    best = max(rates["free"].values())
    results = {}
    for name in names:
        with console.status(f"{TITLES[name]}: training"):
            folder, usage, timed = train(name, setting)
        with console.status(f"{TITLES[name]}: answering the test rows"):
            results[name] = figures(usage, timed, setting.recipe, best) | score(folder, setting)
        console.print(sentence(name, results[name]))
    console.print(table(results, setting))
    console.print(
        f"float32 matrix products, GFLOP/s: {listed(rates['free'])}; with the stage's kernels: {listed(rates['pinned'])}"
    )
    if steps is None:
        write_json(
            RESULTS,
            {
                **circumstances(PACKAGES, "olive"),
                "load_at_start": load,
                "gflops": rates,
                "recipe": setting.recipe,
                "contenders": results,
            },
        )
        console.print(f"written to {RESULTS.relative_to(ROOT)}")


def matrix_rates(scratch: Path, kernels: bool) -> dict[str, float]:
    """GFLOP/s of torch's float32 products by shape, with the kernels that torch chooses or those that the stages pin."""
    report = scratch / "matrix_rate.json"
    run("the matrix rate", scratch, environment(scratch, kernels), sys.executable, "-m", "benchmarks.matrix_rate", report)
    return dict(read_json(report))


def figures(usage: Usage, timed: dict[str, Any], recipe: dict[str, Any], best_gflops: float) -> dict[str, Any]:
    """A contender's measurements, as the module's text defines them."""
    tokens = timed["tokens"] * recipe["row_tokens"] / timed["dataset_tokens"]
    per_second = tokens / timed["training_seconds"]
    return {
        "training_seconds": round(timed["training_seconds"], 2),
        "process_seconds": round(usage.seconds, 2),
        "cpu_seconds": round(usage.cpu_seconds, 2),
        "steps": timed["steps"],
        "real_tokens": round(tokens),
        "computed_tokens": timed["positions"],
        "real_tokens_per_second": round(per_second, 1),
        "share_of_matrix_rate": round(FLOPS * recipe["active_parameters"] * per_second / (best_gflops * 1e9), 4),
        "peak_memory_mb": usage.peak_memory_mb,
    }


def sentence(name: str, one: dict[str, Any]) -> str:
    """A contender in one line, as soon as it is done."""
    rate, right = one["real_tokens_per_second"], f"{one['right']} of {one['test_rows']} right"
    return f"{TITLES[name]}: {one['steps']} steps in {one['training_seconds']:.0f} s, {rate:.0f} real tokens/s, {right}"


def table(results: dict[str, dict[str, Any]], setting: Setting) -> Table:
    """One line for each contender."""
    rows, tests = setting.recipe["rows"], next(iter(results.values()))["test_rows"]
    length = f"{setting.steps} steps" if setting.steps else f"{setting.params['train']['num_train_epochs']} epochs"
    columns = Table(title=f"{length} of {rows} rows, {tests} test rows")
    names = (
        "training",
        "process",
        "cores\nbusy",
        "tokens a step,\nreal / computed",
        "real\ntokens/s",
        "of matrix\nrate",
        "peak\nmemory",
        "accuracy",
    )
    columns.add_column("contender", no_wrap=True)
    for name in names:
        columns.add_column(name, justify="right", no_wrap=True)
    for name, one in results.items():
        columns.add_row(
            TITLES[name],
            f"{one['training_seconds']:.1f} s",
            f"{one['process_seconds']:.1f} s",
            f"{one['cpu_seconds'] / one['process_seconds']:.2f}",
            f"{one['real_tokens'] / one['steps']:.0f} / {one['computed_tokens'] / one['steps']:.0f}",
            f"{one['real_tokens_per_second']:.0f}",
            f"{one['share_of_matrix_rate']:.0%}",
            f"{one['peak_memory_mb'] / 1000:.2f} GB",
            f"{one['right'] / one['test_rows']:.3f}",
        )
    return columns


def profile(console: Console, scratch: Path) -> None:
    """Prints the busiest operators of some of the stage's steps."""
    first, end = PROFILED
    with console.status(f"{TITLES['tunepress']}: profiling"):
        _, _, timed = train("tunepress", prepare(scratch, end + 1), PROFILED)
    for title, operators in timed["operators"].items():
        columns = Table(title=f"{title}: own time in step {first + 1}")
        for name in ("operator", "share", "ms a step", "calls a step"):
            columns.add_column(name, justify="left" if name == "operator" else "right", no_wrap=name != "operator")
        for one in operators:
            name = f"{one['operator']} {one['shapes']}".strip()
            columns.add_row(name, f"{one['share']:.1%}", f"{one['milliseconds']:.1f}", f"{one['calls']:.0f}")
        console.print(columns)


def listed(rates: dict[str, float]) -> str:
    """Rates in one line."""
    return ", ".join(f"{shape} {rate:.0f}" for shape, rate in rates.items())


if __name__ == "__main__":
    main()
