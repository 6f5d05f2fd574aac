"""Measures training on an NVIDIA GPU: how fast, in how much memory, compared with transformers' own Trainer.

On a fresh GPU machine, in a copy of this repository (the CUDA build of torch: docs/reproducibility.md; the model takes 8 GB
below TMPDIR while it runs, and about 10 minutes for all contenders):

    python3 -m venv .venv && .venv/bin/pip install -r requirements/cpu.txt && .venv/bin/python -m benchmarks.train_gpu

The model has random weights in Phi-3-mini's shape (3.8 B parameters, bfloat16), and an adapter on each linear layer except
the head. The rows are random tokens, most of them short (40 to 600 tokens, median 180), with labels on their last
quarter. Contenders, each in a process of its own, each on the same rows in the same steps:

- lora, qlora: this project's stage `train`, rows joined in sequences of 2,048 tokens;
- trainer-lora, trainer-qlora: transformers' Trainer with the same arguments and the same adapter, on the same rows one by
  one, padded to the longest of the batch, with logits for each position;
- ...-checkpointing: the same with gradient checkpointing.

Tokens a second count no padding and no warm-up step. Model TFLOP/s are tokens a second x FLOPs a token. A frozen weight
takes 4 FLOPs a token, a multiplication and an addition in the forward pass and as many for the gradient of the layer's
input. A weight of the adapter takes 6, with the gradient of the weight itself. Neither the head (whose share depends on
how many positions have a label), nor attention, nor what gradient checkpointing computes twice is counted, so this is work
that every contender has to do. Phi-3-mini: 4 x 3.62 G + 6 x 0.10 G = 15.1 GFLOP a token at r=64. The share is that of the
rate that the card reaches here in a product of two 8192 x 8192 matrices in bfloat16. Each step's loss is logged, which
waits for the GPU once a step.

To try what transformers and torch offer: --compile, --liger (needs the package liger-kernel), --attn sdpa,
flash_attention_2 (needs flash-attn), flex_attention, sdpa_by_example or sdpa_by_example_varlen. They change this project's
contenders, --compile and --liger the others too; --output keeps the figures.

`--shape tiny` runs all of it on a CPU in float32, in two minutes, to see that it works.
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, check_disk, main, table
from benchmarks.models import SHAPES, add_shape
from benchmarks.processes import ROOT, Figures, call
from tunepress.core.errors import InputError

KINDS = ("lora", "qlora", "trainer-lora", "trainer-qlora")
CONTENDERS = [f"{kind}{suffix}" for kind in KINDS for suffix in ("", "-checkpointing")]
OUT_OF_MEMORY = "out of memory"
SETTINGS = ("shape", "steps", "warmup", "batch", "compile", "liger", "attn")
COLUMNS = ("contender", "tokens/s", "padding", "model TFLOP/s", "share", "peak GB", "first loss", "last loss")


def add_options(parser: ArgumentParser) -> None:
    add_shape(parser)
    parser.add_argument("--contender", action="append", choices=CONTENDERS, help="only this one; may be repeated")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="of each contender (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=5, metavar="N", help="first steps, not timed (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="sequences of a step (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="torch_compile")
    parser.add_argument("--liger", action="store_true", help="use_liger_kernel")
    parser.add_argument("--attn", default="sdpa_by_example", help="attn_implementation of this project's contenders")


def check(options: Namespace) -> None:
    if not 0 <= options.warmup < options.steps or options.batch < 1:
        raise InputError("--warmup must be less than --steps, and --batch at least 1")
    if options.shape != "tiny" and not torch.cuda.is_available():
        raise InputError("needs an NVIDIA GPU and a CUDA build of torch; --shape tiny runs on a CPU")


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Measures the device, then each contender."""
    check_disk(scratch, 1.05 * SHAPES[options.shape].model_bytes)
    device = run("device", scratch, shape=options.shape)
    if "failed" in device:
        raise InputError(device["failed"])
    settings = {name: getattr(options, name) for name in SETTINGS}
    contenders = {}
    for contender in options.contender or CONTENDERS:
        print(f"benchmarks.train_gpu: {contender}", file=sys.stderr, flush=True)
        contenders[contender] = run("measure", scratch, contender=contender, **settings)
        add_share(contenders[contender], device)
    return {"device": device, "settings": settings, "contenders": contenders}


def run(task: str, scratch: Path, **arguments: Any) -> Figures:
    """Figures of a task of contender.py, or why it `failed`."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    variables = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    title = str(arguments.get("contender", task))
    try:
        function = f"benchmarks.train_gpu.contender:{task}"
        return call(function, scratch, kernels=True, title=title, variables=variables, **arguments)[0]
    except InputError as error:
        print((scratch / "output.log").read_text(errors="replace")[-3000:], file=sys.stderr)
        return {"failed": str(error)}


def add_share(figures: Figures, device: Figures) -> None:
    """Adds the share of the device's rate that a contender reached."""
    if "failed" not in figures:
        figures["share"] = round(figures["model_tflops"] / device["matrix_tflops"], 4)


def report(measured: Figures, options: Namespace | None = None) -> Iterator[RenderableType]:
    """One line for each contender, and the errors."""
    device, settings = measured["device"], measured["settings"]
    model = f"{settings['shape']}, {device['parameters'] / 1e6:,.2f} M parameters, {settings['batch']} sequences a step"
    rate = f"{device['device']}, {device['matrix_tflops']:.3g} TFLOP/s in {device['matrix_dtype']}, torch {device['torch']}"
    rows = [(contender, *cells(figures)) for contender, figures in measured["contenders"].items()]
    yield table(f"{model}\n{rate}", COLUMNS, rows)
    for figures in measured["contenders"].values():
        if figures.get("failed", OUT_OF_MEMORY) != OUT_OF_MEMORY:
            yield figures["failed"][:200]


def cells(figures: Figures) -> list[str]:
    """A contender's figures as text."""
    if "failed" in figures:
        return [OUT_OF_MEMORY if figures["failed"] == OUT_OF_MEMORY else "failed"]
    return [
        f"{figures['tokens_per_second']:,.0f}",
        f"{figures['padding']:.0%}",
        f"{figures['model_tflops']:.3g}",
        f"{figures['share']:.0%}",
        f"{figures['peak_gb']:.2f}",
        f"{figures['first_loss']:.4f}",
        f"{figures['last_loss']:.4f}",
    ]


def failure(measured: Figures) -> str | None:
    return "every contender failed" if all("failed" in figures for figures in measured["contenders"].values()) else None


BENCHMARK = Benchmark("train_gpu", __doc__, ("torch", "transformers", "peft"), measure, report, add_options, check, failure)

if __name__ == "__main__":
    main(BENCHMARK)
