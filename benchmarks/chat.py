"""Runs the experiment chat in a clone of this repository, and keeps what each step cost.

    python -m benchmarks.chat                     # half an hour on two cores

The clone has the last commit, and none of the outputs except the base model. The columns:

- exact match: share of the last answers that are the expected ones, except for white space.
- ROUGE-L: mean F-measure of the longest common sequence of words.
- perplexity: of the expected answers.
- calls: of the answers that should call a function, those with the same calls.
- answers: seconds of the stage evaluate, with likelihoods and imports.
"""

import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, gigabytes, main, table
from benchmarks.processes import ROOT, Figures, environment, run
from tunepress.core.files import read_json
from tunepress.core.paths import BASE, METRICS, TIMINGS

MODELS = ("base", "merged", "onnx")
KEPT = ("rows", "exact_match", "exact_match_low", "exact_match_high", "rouge_l", "perplexity")
COLUMNS = ("model", "exact\nmatch", "ROUGE-L", "perplexity", "calls", "answers")
EXPERIMENT = ("dvc", "exp", "run", "-S", "+experiment=chat")


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Runs the experiment and reads its metrics."""
    clone = scratch / "clone"
    search = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    names = {f"GIT_{role}_{key}": "benchmark" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    variables = environment(scratch, kernels=True) | names | {"PATH": search, "PYTHONPATH": ""}
    run("git clone", scratch, variables, "git", "clone", "--quiet", ROOT, clone)
    if (ROOT / BASE).exists():
        shutil.copytree(ROOT / BASE, clone / BASE)
    with console.status(" ".join(EXPERIMENT)):
        usage = run(" ".join(EXPERIMENT), clone, variables, *EXPERIMENT)
    candidates = {}
    for model in MODELS:
        metrics = read_json(clone / METRICS / "evaluate" / f"{model}.json")
        calls = {key: value for key, value in metrics.items() if key.startswith("tool_call")}
        seconds = read_json(clone / TIMINGS / f"evaluate_{model}.json")["seconds"]
        candidates[model] = {key: metrics[key] for key in KEPT} | calls | {"seconds": seconds}
    prepared, trained = read_json(clone / METRICS / "prepare.json"), read_json(clone / TIMINGS / "train.json")
    return {
        "splits": prepared["splits"],
        "training_seconds": trained["seconds"],
        "peak_memory_mb": trained["peak_memory_mb"],
        "kl": read_json(clone / METRICS / "summary.json")["kl"],
        "whole_seconds": round(usage.seconds),
        "candidates": candidates,
    }


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """One line for each model."""
    rows = [
        (
            model,
            f"{figures['exact_match']:.3f}",
            f"{figures['rouge_l']:.3f}",
            f"{figures['perplexity']:.2f}",
            f"{figures['tool_call_accuracy']:.3f}",
            f"{figures['seconds']:.0f} s",
        )
        for model, figures in measured["candidates"].items()
    ]
    training = f"{measured['training_seconds']:.0f} s of training, {gigabytes(measured['peak_memory_mb'])}"
    yield table(f"{measured['splits']['test']} dialogues, {training}", COLUMNS, rows)


BENCHMARK = Benchmark("chat", __doc__, ("torch", "transformers", "peft", "onnxruntime-genai"), measure, report)

if __name__ == "__main__":
    main(BENCHMARK)
