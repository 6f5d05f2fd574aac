"""Training on an NVIDIA GPU: how fast, in how much memory, against transformers' own Trainer.

On a fresh GPU machine, in a copy of this repository (for the CUDA build of torch see the README; the model takes 8 GB
below TMPDIR while it runs, and about 10 minutes for all contenders):

    python3 -m venv .venv && .venv/bin/pip install -r requirements/cpu.txt && .venv/bin/python -m benchmarks.train_gpu

The model has random weights in Phi-3-mini's shape (3.8 B parameters, bfloat16), and an adapter on each linear layer but
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

To try what transformers and torch offer: --compile, --liger (wants the package liger-kernel), --attn sdpa,
flash_attention_2 (wants flash-attn), flex_attention, sdpa_by_example or sdpa_by_example_varlen. They change the contenders
that are this project's, --compile and --liger the others too; the table goes to another file with --output.

`--shape tiny` runs all of it on a CPU in float32, in two minutes, to see that it works.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.train_gpu_job import Job
from tunepress.core.files import write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/train_gpu.json"
KINDS = ("lora", "qlora", "trainer-lora", "trainer-qlora")
CONTENDERS = [f"{kind}{suffix}" for kind in KINDS for suffix in ("", "-checkpointing")]
OUT_OF_MEMORY = "out of memory"
MODEL_BYTES = {"phi3-mini": 8e9, "tiny": 1e6}


def main() -> None:
    """The command line."""
    asked = parse(sys.argv[1:])
    if asked.shape != "tiny" and not torch.cuda.is_available():
        sys.exit("train_gpu: wants an NVIDIA GPU and a CUDA build of torch; --shape tiny runs on a CPU")
    with tempfile.TemporaryDirectory(prefix="train_gpu") as scratch:
        folder = Path(scratch)
        free = shutil.disk_usage(folder).free
        if free < MODEL_BYTES[asked.shape]:
            sys.exit(f"train_gpu: {free / 1e9:.1f} GB free in {folder.parent}, wants 8 GB; set TMPDIR to another folder")
        device = run(job(asked, "device"), folder)
        if "failed" in device:
            sys.exit(f"train_gpu: {device['failed']}")
        measured = {}
        for contender in asked.contender or CONTENDERS:
            print(f"train_gpu: {contender}", file=sys.stderr, flush=True)
            measured[contender] = run(job(asked, contender), folder)
            add_share(measured[contender], device)
    settings = {name: value for name, value in vars(asked).items() if name not in ("output", "contender")}
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(asked.output, {"device": device, "settings": settings, "contenders": measured})
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(table(asked, device, measured))
    for contender, figures in measured.items():
        if figures.get("failed", OUT_OF_MEMORY) != OUT_OF_MEMORY:
            print(f"train_gpu: {contender}: {figures['failed'][:200]}", file=sys.stderr)
    if all("failed" in figures for figures in measured.values()):
        sys.exit(1)


def parse(arguments: list[str]) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser("python -m benchmarks.train_gpu", description="Training on a GPU, measured.")
    parser.add_argument("--shape", choices=list(MODEL_BYTES), default="phi3-mini", help="of the model")
    parser.add_argument("--contender", action="append", choices=CONTENDERS, help="may be given several times; default: all")
    parser.add_argument("--steps", type=int, default=20, help="of each contender")
    parser.add_argument("--warmup", type=int, default=5, help="of these, steps that are not timed")
    parser.add_argument("--batch", type=int, default=4, help="sequences of a step")
    parser.add_argument("--compile", action="store_true", help="torch_compile")
    parser.add_argument("--liger", action="store_true", help="use_liger_kernel")
    parser.add_argument("--attn", default="sdpa_by_example", help="attn_implementation of this project's contenders")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the figures go as JSON")
    asked = parser.parse_args(arguments)
    if not 0 <= asked.warmup < asked.steps or asked.batch < 1:
        parser.error("--steps must be more than --warmup, and --batch 1 or more")
    return asked


def job(asked: argparse.Namespace, contender: str) -> Job:
    """What one process has to do."""
    names = ("shape", "steps", "warmup", "batch", "compile", "liger", "attn")
    return Job(contender=contender, **{name: getattr(asked, name) for name in names})


def run(todo: Job, folder: Path) -> dict[str, Any]:
    """Does a job in a process of its own and returns its figures, or why there are none."""
    output, log = folder / f"{todo.contender}.json", folder / f"{todo.contender}.log"
    command = [sys.executable, "-m", "benchmarks.train_gpu_contender", json.dumps(asdict(todo)), str(output)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with log.open("w") as said:
        environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
        ended = subprocess.run(command, cwd=folder, env=environment, stdout=said, stderr=said, check=False)
    if output.exists():
        figures: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    else:
        figures = {"failed": f"ended with {ended.returncode}"}
    if figures.get("failed", OUT_OF_MEMORY) != OUT_OF_MEMORY:
        print(log.read_text(errors="replace")[-3000:], file=sys.stderr)
    return figures


def add_share(figures: dict[str, Any], device: dict[str, Any]) -> None:
    """Adds which share of the device's rate a contender reached."""
    if "failed" not in figures:
        figures["share"] = round(figures["model_tflops"] / device["matrix_tflops"], 4)


def table(asked: argparse.Namespace, device: dict[str, Any], measured: dict[str, Any]) -> Table:
    """One line for each contender."""
    model = f"{asked.shape}, {device['parameters'] / 1e6:,.2f} M parameters, {asked.batch} sequences a step"
    rate = f"{device['device']}, {device['matrix_tflops']:.3g} TFLOP/s in {device['matrix_dtype']}, torch {device['torch']}"
    columns = Table(title=f"{model}\n{rate}")
    for name in ("contender", "tokens/s", "padding", "model TFLOP/s", "share", "peak GB", "first loss", "last loss"):
        columns.add_column(name, justify="left" if name == "contender" else "right", no_wrap=True)
    for contender, figures in measured.items():
        columns.add_row(contender, *cells(figures))
    return columns


def cells(figures: dict[str, Any]) -> list[str]:
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


if __name__ == "__main__":
    main()
