"""Measures GPTQ on some layers of a large model: every layer takes the same time and memory.

    python -m benchmarks.gptq                     # some five minutes on two cores, 3 GB of disk below TMPDIR
    python -m benchmarks.gptq --shape tiny        # to see that it works

The model has random weights in Phi-3-mini's shape, in bfloat16, and LAYERS of its 32 layers. It is rounded with as many rows as
the stage build takes, of as many tokens as the default rows have. Seconds are the mean of a layer; memory is the process's peak,
which making the model does not reach.
"""

import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, main, table
from benchmarks.models import SHAPES, add_shape, random_model
from benchmarks.processes import Figures
from stages.build.builder import Builder
from stages.build.quantize.layers import quantize_with_gptq
from stages.build.quantize.offloaded_model import OffloadedModel
from stages.build.quantize.recipe import WeightRecipe
from tunepress.config.build import SAMPLES
from tunepress.core.stage import peak_memory_mb

LAYERS = 2
TOKENS = 26  # of a row: the mean of the default rows


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Makes a model and rounds it."""
    config = SHAPES[options.shape].config
    with console.status("making the model"):
        random_model(config | {"num_hidden_layers": LAYERS}, scratch)
    before = peak_memory_mb()
    recipe = WeightRecipe.of("int4", "cpu", Builder("int4", "cpu", []).options(scratch), LAYERS)
    rows = torch.randint(config["vocab_size"], (SAMPLES, TOKENS), generator=torch.Generator().manual_seed(0)).tolist()
    start = time.perf_counter()
    with console.status("rounding"):
        matrices = sum(len(layer) for layer in quantize_with_gptq(OffloadedModel(scratch), recipe, rows))
    seconds = (time.perf_counter() - start) / LAYERS
    return {
        "shape": options.shape,
        "rows": SAMPLES,
        "layers": LAYERS,
        "of_layers": config["num_hidden_layers"],
        "matrices": matrices,
        "seconds_a_layer": round(seconds, 1),
        "peak_memory_mb_before": before,
        "peak_memory_mb": peak_memory_mb(),
    }


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """One line."""
    seconds, layers = measured["seconds_a_layer"], measured["of_layers"]
    row = (
        str(measured["matrices"] // measured["layers"]),
        f"{seconds:.1f} s",
        f"{seconds * layers / 60:.0f} min",
        f"{measured['peak_memory_mb'] / 1000:.1f} GB",
    )
    columns = ("matrices a layer", "seconds a layer", f"of {layers} layers", "peak memory")
    yield table(f"gptq with {measured['rows']} rows, {measured['shape']}", columns, [row], left=0)


BENCHMARK = Benchmark("gptq", __doc__, ("torch", "transformers"), measure, report, add_options=add_shape)

if __name__ == "__main__":
    main(BENCHMARK)
