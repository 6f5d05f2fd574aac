"""Measures how much conformance.jsonl must let pass, and what it must not: the tolerance of tools.cli.verify.

    python -m benchmarks.conformance       # after `make repro`; some six minutes on two cores

Two models are quantized with k_quant: models/merged, which answers with labels, and models/base, which answers with free text
of 32 tokens. The answers to the 30 invented prompts are recorded, and two other builds of the same weights are compared with
them:

- float32 activations: the product of layers computes as a CPU without int8 kernels would. This is to pass.
- another quantization: the builder's default. This is to fail.
"""

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, main, table
from benchmarks.models import recipe
from benchmarks.processes import Figures, call, workspace
from tunepress.core.paths import BASE, MERGED
from tunepress.text.prompt import Prompt

FREE_TEXT = Prompt("{text}\n", "{answer}", None, source_max_len=128, max_new_tokens=32)
MODELS = {"labels": MERGED, "free text": BASE}
SHIPPED = "as recorded"
BUILDS: dict[str, dict[str, Any]] = {
    SHIPPED: {"algo_config": "k_quant", "accuracy_level": 4},
    "float32 activations": {"algo_config": "k_quant", "accuracy_level": 1},
    "another quantization": {"algo_config": None, "accuracy_level": 4},
}


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Compares the builds of both models."""
    workspace(scratch, *MODELS.values())
    measured = {}
    for kind in MODELS:
        with console.status(kind):
            measured[kind], _ = call("benchmarks.conformance:changes", scratch, kernels=True, title=kind, kind=kind)
    return {"models": measured}


def changes(kind: str) -> dict[str, Any]:
    """What each other build of a model changes."""
    from stages.build.stage import build
    from stages.compare import invented_prompts
    from tunepress.inference.conformance import answer_prompts
    from tunepress.inference.onnx_model import OnnxModel

    source = MODELS[kind]
    prompt = replace(Prompt.load(source), temperature=None) if kind == "labels" else FREE_TEXT
    folders = {name: Path(kind.replace(" ", "_")) / str(number) for number, name in enumerate(BUILDS)}
    for name, folder in folders.items():
        build(recipe(block_size=32, **BUILDS[name]), source, folder)
        prompt.save(folder)
    prompts = invented_prompts(folders[SHIPPED])
    answered = {}
    tokens = None
    for name, folder in folders.items():
        answered[name] = answer_prompts(OnnxModel(folder), folder, prompts, prompt.max_new_tokens, tokens)
        tokens = [answer.tokens for answer in answered[SHIPPED]]
    recorded = answered.pop(SHIPPED)
    return {
        name: {
            "prompts": len(prompts),
            "different": sum(before.tokens != after.tokens for before, after in zip(recorded, answers, strict=True)),
            "changes": sorted(
                max(abs(after.probabilities[key] - value) for key, value in before.probabilities.items())
                for before, after in zip(recorded, answers, strict=True)
            ),
        }
        for name, answers in answered.items()
    }


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """A line for each model and build."""
    rows = [
        (kind, name, f"{changed['different']} of {changed['prompts']}", f"{changed['changes'][-1]:.3f}")
        for kind, builds in measured["models"].items()
        for name, changed in builds.items()
    ]
    yield table("Against the recorded answers", ("", "", "other answers", "largest change\nof a probability"), rows)


BENCHMARK = Benchmark("conformance", __doc__, ("torch", "onnxruntime", "onnxruntime-genai"), measure, report)

if __name__ == "__main__":
    main(BENCHMARK)
