"""Measures a task of lm-evaluation-harness through this project's models and through the harness's own Hugging Face backend.

    python -m benchmarks.tasks       # after `make repro`, and with `make setup-harness`; a minute

The task is data/retained/choices.jsonl, 100 questions with four choices, and the model models/merged in float32 in batches of 16.
The figures must agree; the project computes a question once for all its choices.
"""

import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, gigabytes, main, table
from benchmarks.processes import ROOT, Figures, call, workspace
from tunepress.core.paths import MERGED

BATCH_SIZE = 16
NAME = "questions"
TASK = f"""task: {NAME}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {ROOT}/data/retained/choices.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_target: answer
doc_to_choice: choices
metric_list:
  - metric: acc
"""
CONTENDERS = {"project": "this project's scorer", "backend": "the harness's Hugging Face backend"}


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Runs both."""
    workspace(scratch, MERGED)
    (scratch / f"{NAME}.yaml").write_text(TASK, encoding="utf-8")
    measured = {}
    for name in CONTENDERS:
        with console.status(name):
            figures, usage = call(f"benchmarks.tasks:{name}", scratch, kernels=True)
        measured[name] = figures | usage.figures()
    return {"contenders": measured}


def project() -> dict[str, Any]:
    """The task through the project's interface."""
    from stages.evaluate.harness import HarnessModel
    from tunepress.inference.torch_model import TorchModel

    return evaluated(HarnessModel(TorchModel(MERGED, BATCH_SIZE)))


def backend() -> dict[str, Any]:
    """The task through the harness's own model."""
    from lm_eval.models.huggingface import HFLM

    return evaluated(HFLM(pretrained=str(MERGED), device="cpu", dtype="float32", batch_size=BATCH_SIZE))


def evaluated(model: Any) -> dict[str, Any]:
    """The accuracy of a loaded model on the task, and the seconds that it took."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    start = time.perf_counter()
    results = simple_evaluate(model, tasks=[NAME], task_manager=TaskManager(include_path="."), bootstrap_iters=0)
    seconds = time.perf_counter() - start
    logprobs = [response[0][0] for sample in results["samples"][NAME] for response in sample["resps"]]
    return {
        "accuracy": results["results"][NAME]["acc,none"],
        "work_seconds": seconds,
        "mean_logprob": fmean(logprobs),
    }


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """One line for each."""
    rows = [
        (
            CONTENDERS[name],
            f"{figures['accuracy']:.4f}",
            f"{figures['mean_logprob']:.4f}",
            f"{figures['work_seconds']:.1f} s",
            gigabytes(figures["peak_memory_mb"]),
        )
        for name, figures in measured["contenders"].items()
    ]
    yield table("100 questions with four choices", ("", "accuracy", "mean log-probability", "time", "peak memory"), rows)


BENCHMARK = Benchmark("tasks", __doc__, ("torch", "transformers", "lm-eval"), measure, report)

if __name__ == "__main__":
    main(BENCHMARK)
