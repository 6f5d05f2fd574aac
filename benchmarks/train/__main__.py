"""Measures training: this project's stage, transformers' Trainer and Olive's LoRA pass, on the same rows in the same run.

    python -m benchmarks.train                        # tunepress, trainer, olive twice: some fifteen minutes on two cores
    python -m benchmarks.train --contender tunepress --contender trainer --steps 5
    python -m benchmarks.train --profile              # where the time of one step of the stage goes

Contenders run one after the other, each in a process of its own, from the project's params.yaml, models/base and
data/prepared, on the CPU. Training arguments and tokens of the rows are the same, and for stage and Trainer the initial
adapter, the order of the rows and the positions with a loss. Olive creates its adapter before it seeds, learns the prompts along
with the answers, and where it joins rows, its batch size is the one with the most similar number of tokens a step.
It is measured without gradient checkpointing, as the others, and with it, which is its default.
The other tools run with the kernels that torch chooses; the stage pins its own (tunepress/core/__init__.py), and the effect on a
matrix product is printed below the table.

- training: seconds in Trainer.train() without the evaluations in it, which only the stage makes.
- process: seconds from start to end, with imports, loading, the stage's evaluations and saving.
- real tokens/s: tokens of the rows that were trained, epochs included, by seconds of training. Padding does not count, nor
  what Olive puts between rows: its tokens are scaled by (tokens of the rows / tokens of its data set).
- of matrix rate: 4 * active parameters * real tokens/s, by the fastest float32 matrix product measured in this run.
  A product with a weight is 2 FLOPs (multiply, add) per weight and token in the forward pass and 2 more in the backward
  pass, for the gradient of its input; the weights are frozen and need no gradient. Active parameters are all weights except the
  embedding and the head, which is tied to it here. Left out: the head, attention's own products, the adapter (4%) and all
  that is not a matrix product. The share is thus what was unavoidable of what was possible; the rest is waste or overhead.
- cores busy: CPU time of the process by its seconds; well below the number of cores where something else was running.
- peak memory: largest resident size of the training process.
- accuracy: share of the test rows whose greedy answer begins with the right label, after peft has merged the adapter.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, cores_busy, gigabytes, main, table
from benchmarks.processes import ROOT, Figures, Usage, call
from benchmarks.train.contenders import TITLES, Setting, project, score, train
from tunepress.core.errors import InputError

DEFAULT = ("tunepress", "trainer", "olive", "olive-checkpointing")
FLOPS = 4  # per active parameter and token
PROFILED = (4, 5)  # steps: the first, and the one after the last; only one has one number of tokens, so few shapes
COLUMNS = (
    "contender",
    "training",
    "process",
    "cores\nbusy",
    "tokens a step,\nreal / computed",
    "real\ntokens/s",
    "of matrix\nrate",
    "peak\nmemory",
    "accuracy",
)


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--contender", action="append", choices=TITLES, help="only this one; may be repeated")
    parser.add_argument("--steps", type=int, metavar="N", help="end each training after N steps, for a quick check")
    parser.add_argument("--profile", action="store_true", help="print where the time of one step of the stage goes instead")


def check(options: Namespace) -> None:
    if options.steps is not None and options.steps < 1:
        raise InputError(f"--steps: must be at least 1, got {options.steps}")


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Lets the contenders train and answer, or profiles the stage."""
    if options.profile:
        with console.status(f"{TITLES['tunepress']}: profiling"):
            _, _, timed = train("tunepress", prepare(scratch, PROFILED[1] + 1), PROFILED)
        return {"operators": timed["operators"]}
    with console.status("reading the rows"):
        setting = prepare(scratch, options.steps)
    with console.status("measuring matrix products"):
        rates = {}
        for name, kernels in {"free": False, "pinned": True}.items():
            rates[name], _ = call("benchmarks.train.inputs:matrix_rates", scratch, kernels)
    best = max(rates["free"].values())
    contenders = {}
    for name in options.contender or DEFAULT:
        with console.status(f"{TITLES[name]}: training"):
            folder, usage, timed = train(name, setting)
        with console.status(f"{TITLES[name]}: answering the test rows"):
            contenders[name] = figures(usage, timed, setting.recipe, best) | score(folder)
        console.print(sentence(name, contenders[name]))
    return {"gflops": rates, "recipe": setting.recipe, "contenders": contenders}


def prepare(scratch: Path, steps: int | None) -> Setting:
    """Reads the project's rows and parameters.

    Raises:
        InputError: the pipeline has not run yet, or not all contenders can train its recipe.
    """
    folder = project(scratch / "recipe")
    params: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "params.yaml"))
    if params["train"]["bf16"]:
        raise InputError("params.yaml: train.bf16 is true; the contenders are compared in float32")
    if not params["data"]["labels"]:
        raise InputError("params.yaml: data.labels is null; the contenders are compared by the labels they answer")
    recipe, _ = call("benchmarks.train.inputs:recipe", folder, kernels=True, folder_of_rows=str(scratch))
    return Setting(scratch, params, recipe, steps)


def figures(usage: Usage, timed: Figures, recipe: Figures, best_gflops: float) -> Figures:
    """A contender's measurements, as the module's text defines them."""
    tokens = timed["tokens"] * recipe["row_tokens"] / timed["dataset_tokens"]
    per_second = tokens / timed["training_seconds"]
    return {
        "training_seconds": round(timed["training_seconds"], 2),
        **usage.figures(),
        "steps": timed["steps"],
        "real_tokens": round(tokens),
        "computed_tokens": timed["positions"],
        "real_tokens_per_second": round(per_second, 1),
        "share_of_matrix_rate": round(FLOPS * recipe["active_parameters"] * per_second / (best_gflops * 1e9), 4),
    }


def sentence(name: str, figures: Figures) -> str:
    """A contender in one line, as soon as it is done."""
    rate, right = figures["real_tokens_per_second"], f"{figures['right']} of {figures['test_rows']} right"
    return f"{TITLES[name]}: {figures['steps']} steps in {figures['training_seconds']:.0f} s, {rate:.0f} real tokens/s, {right}"


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """One line for each contender, or the profile."""
    if options.profile:
        yield from (profile(title, operators) for title, operators in measured["operators"].items())
        return
    rows = [
        (
            TITLES[name],
            f"{figures['training_seconds']:.1f} s",
            f"{figures['process_seconds']:.1f} s",
            cores_busy(figures),
            f"{figures['real_tokens'] / figures['steps']:.0f} / {figures['computed_tokens'] / figures['steps']:.0f}",
            f"{figures['real_tokens_per_second']:.0f}",
            f"{figures['share_of_matrix_rate']:.0%}",
            gigabytes(figures["peak_memory_mb"]),
            f"{figures['right'] / figures['test_rows']:.3f}",
        )
        for name, figures in measured["contenders"].items()
    ]
    tests = next(iter(measured["contenders"].values()))["test_rows"]
    length = f"{options.steps} steps" if options.steps else "all epochs"
    yield table(f"{length} of {measured['recipe']['rows']} rows, {tests} test rows", COLUMNS, rows)
    free, pinned = (", ".join(f"{shape} {rate:.0f}" for shape, rate in rates.items()) for rates in measured["gflops"].values())
    yield f"float32 matrix products, GFLOP/s: {free}; with the stage's kernels: {pinned}"


def profile(title: str, operators: list[Figures]) -> RenderableType:
    """The operators that took most of a step."""
    rows = [
        (
            f"{operator['operator']} {operator['shapes']}".strip(),
            f"{operator['share']:.1%}",
            f"{operator['milliseconds']:.1f}",
            f"{operator['calls']:.0f}",
        )
        for operator in operators
    ]
    return table(f"{title}: own time in step {PROFILED[0] + 1}", ("operator", "share", "ms a step", "calls a step"), rows)


BENCHMARK = Benchmark(
    "train",
    __doc__,
    ("torch", "transformers", "peft", "accelerate", "datasets"),
    measure,
    report,
    add_options,
    check,
    peer="olive",
    width=130,
)

if __name__ == "__main__":
    main(BENCHMARK)
