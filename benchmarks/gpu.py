"""Tries an NVIDIA GPU in one run of at most 12 minutes, without a network: the training, the 4-bit weights, and every stage.

    python -m benchmarks.gpu                                # the model takes 8 GB of disk below TMPDIR
    python -m benchmarks.gpu --device cpu --shape tiny      # to see that it works

The environment is one of the locks for CUDA (docs/docker.md), or what a machine has and wheels for the rest of it:

    pip install --no-index --find-links wheels bitsandbytes hydra-core dvclive onnxruntime-genai-cuda onnxruntime-gpu

A part that fails, for example because a package is missing, is reported with its error, and the others go on.

- training: the contenders lora and qlora of benchmarks.train_gpu, on Phi-3-mini's shape.
- 4-bit weights: the numbers of bitsandbytes' quantization on the GPU that differ from those on the CPU. QLoRA is trained on the
  former, and the stage merge makes the latter.
- stages: the experiment smoke in bfloat16 with an int4 model for CUDA, which answers the rows of evaluate and benchmark.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from benchmarks.full_size import add_until, run_stages, stage_table
from benchmarks.harness import Benchmark, main
from benchmarks.models import add_shape
from benchmarks.processes import Figures, call, environment
from benchmarks.train_gpu import __main__ as training
from tunepress.core.errors import InputError

CONTENDERS = ["lora", "qlora"]
SIDE = 4096  # rows and columns of the matrix that is quantized on both


def add_options(parser: ArgumentParser) -> None:
    add_shape(parser)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="(default: %(default)s)")
    add_until(parser)


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Runs the parts."""
    variables = environment(scratch, kernels=True) | {"CUDA_VISIBLE_DEVICES": ""}
    if options.device == "cuda":
        variables["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    parts: dict[str, Callable[[Path], Figures]] = {
        "training": partial(train, options, console),
        "4-bit weights": partial(compare_codes, options.device, variables),
        "stages": partial(smoke, options, variables, console),
    }
    measured: Figures = {"device": options.device, "shape": options.shape}
    for name, part in parts.items():
        folder = scratch / name.replace(" ", "-")
        folder.mkdir()
        try:
            measured[name] = part(folder)
        except InputError as error:
            measured[name] = {"failed": str(error)}
    return measured


def train(options: Namespace, console: Console, folder: Path) -> Figures:
    """The figures of benchmarks.train_gpu with its defaults."""
    parser = ArgumentParser()
    training.add_options(parser)
    chosen = parser.parse_args(["--shape", options.shape, *(f"--contender={name}" for name in CONTENDERS)])
    training.check(chosen)
    return training.measure(chosen, folder, console)


def compare_codes(device: str, variables: Mapping[str, str], folder: Path) -> Figures:
    """How many of a matrix's numbers differ after the quantization on the device and on the CPU."""
    return call("benchmarks.gpu:differing_codes", folder, kernels=True, variables=variables, device=device)[0]


def differing_codes(device: str) -> dict[str, Any]:
    """Quantizes a random matrix on both. Runs in a process of its own."""
    import torch

    from tunepress.models.bnb_4bit import Quantization

    weight = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0)).bfloat16()
    counts = {}
    for double in (False, True):
        quantization = Quantization("nf4", double, compensated=False, dtype="bfloat16")
        on_device, on_cpu = quantization.round_trip(weight.to(device)).cpu(), quantization.round_trip(weight)
        counts["double_quantized" if double else "quantized"] = int((on_device != on_cpu).sum())
    return {"numbers": weight.numel(), **counts}


def smoke(options: Namespace, variables: Mapping[str, str], console: Console, folder: Path) -> Figures:
    """What the process of each stage used."""
    on_gpu = ["train.bf16=true", "build=cuda_int4"] if options.device == "cuda" else []
    return run_stages(["+experiment=smoke", *on_gpu], folder, variables, console, options.until)


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """A table for each part, or its error."""
    for name in ("training", "4-bit weights", "stages"):
        part = measured[name]
        if "failed" in part:
            yield f"{name}: not run: {part['failed']}"
        elif name == "training":
            yield from training.report(part)
        elif name == "stages":
            yield stage_table(f"smoke on {measured['device']}, memory of the host", part)
        else:
            different = f"{part['quantized']:,} and, with quantized scales, {part['double_quantized']:,}"
            yield f"4-bit weights: {different} of {part['numbers']:,} numbers differ between {measured['device']} and cpu"


BENCHMARK = Benchmark("gpu", __doc__, ("torch", "transformers", "peft"), measure, report, add_options=add_options)

if __name__ == "__main__":
    main(BENCHMARK)
