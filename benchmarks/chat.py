"""Runs the experiment chat, or another one of free text, in a clone of this repository, and keeps what each step cost.

    python -m benchmarks.chat                     # half an hour on two cores
    python -m benchmarks.chat --experiment extract --output benchmarks/results/extract.json

The clone has the last commit, and none of the outputs except the base model. The columns:

- exact match: share of the last answers that are the expected ones, except for white space.
- ROUGE-L: mean F-measure of the longest common sequence of words.
- perplexity: of the expected answers.
- calls: of the answers that should call a function, those with the same calls.
- schema, fields: of answers in JSON, those that match the schema, and the expected fields that are right.
- answers: seconds of the stage evaluate, with likelihoods and imports.
"""

import os
import shutil
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, gigabytes, main, table
from benchmarks.processes import ROOT, Figures, environment, run
from tunepress.core.files import read_json
from tunepress.core.paths import BASE, METRICS, TIMINGS

MODELS = ("base", "merged", "onnx")
KEPT = ("rows", "exact_match", "exact_match_low", "exact_match_high", "rouge_l", "perplexity")
OF_CALLS = ("tool_calls", "tool_call_accuracy", "tool_name_accuracy")
OF_JSON = ("schema_valid_rate", "field_accuracy", "fields", "unguided")
SHARES = {"tool_call_accuracy": "calls", "schema_valid_rate": "schema", "field_accuracy": "fields"}  # columns of some experiments


def add_options(parser: ArgumentParser) -> None:
    """Adds --experiment."""
    parser.add_argument("--experiment", default="chat", help="of conf/experiment/ (default: %(default)s)")


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Runs the experiment and reads its metrics."""
    clone = scratch / "clone"
    search = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    names = {f"GIT_{role}_{key}": "benchmark" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    variables = environment(scratch, kernels=True) | names | {"PATH": search, "PYTHONPATH": ""}
    run("git clone", scratch, variables, "git", "clone", "--quiet", ROOT, clone)
    if (ROOT / BASE).exists():
        shutil.copytree(ROOT / BASE, clone / BASE)
    command = ("dvc", "exp", "run", "-S", f"+experiment={options.experiment}")
    with console.status(" ".join(command)):
        usage = run(" ".join(command), clone, variables, *command)
    candidates = {}
    for model in MODELS:
        metrics = read_json(clone / METRICS / "evaluate" / f"{model}.json")
        seconds = read_json(clone / TIMINGS / f"evaluate_{model}.json")["seconds"]
        kept = {key: metrics[key] for key in (*KEPT, *OF_CALLS, *OF_JSON) if key in metrics}
        candidates[model] = kept | {"seconds": seconds}
    prepared, trained = read_json(clone / METRICS / "prepare.json"), read_json(clone / TIMINGS / "train.json")
    return {
        "splits": prepared["splits"],
        "training_seconds": trained["seconds"],
        "peak_memory_mb": trained["peak_memory_mb"],
        "kl": read_json(clone / METRICS / "summary.json")["kl"],
        "whole_seconds": round(usage.seconds),
        "guidance": read_json(clone / METRICS / "benchmark/onnx.json").get("guidance"),
        "baselines": read_json(clone / METRICS / "baselines.json"),
        "candidates": candidates,
    }


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """One line for each model."""
    candidates = measured["candidates"]
    shares = [key for key in SHARES if key in candidates["onnx"]]
    columns = ("model", "exact\nmatch", "ROUGE-L", "perplexity", *(SHARES[key] for key in shares), "answers")
    rows = [
        (
            model,
            f"{figures['exact_match']:.3f}",
            f"{figures['rouge_l']:.3f}",
            f"{figures['perplexity']:.2f}",
            *(f"{figures[key]:.3f}" for key in shares),
            f"{figures['seconds']:.0f} s",
        )
        for model, figures in candidates.items()
    ]
    training = f"{measured['training_seconds']:.0f} s of training, {gigabytes(measured['peak_memory_mb'])}"
    yield table(f"{measured['splits']['test']} test rows, {training}", columns, rows)


BENCHMARK = Benchmark("chat", __doc__, ("torch", "transformers", "peft", "onnxruntime-genai"), measure, report, add_options)

if __name__ == "__main__":
    main(BENCHMARK)
