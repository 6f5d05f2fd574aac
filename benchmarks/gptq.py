"""Measures GPTQ on a large model, a few layers of it: every layer takes as long and needs as much memory as the next.

    python -m benchmarks.gptq                     # some five minutes on two cores, 3 GB of disk below TMPDIR
    python -m benchmarks.gptq --shape tiny        # to see that it works

The model has random weights in Phi-3-mini's shape, in bfloat16, and LAYERS of its 32 layers; it is rounded for as many rows as
the stage build takes, of as many tokens as the default rows have. Seconds are the mean of a layer; memory is the process's peak,
which making the model does not reach. The figures also go to benchmarks/results/gptq.json; those of the tiny shape do not.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, Phi3Config

from benchmarks.circumstances import circumstances, load_at_start
from benchmarks.merge_contender import write_weights
from benchmarks.train_gpu_shapes import SHAPES
from stages.build.builder import Builder
from stages.build.quantize.checkpoint import SourceModel
from stages.build.quantize.layers import quantize_with_gptq
from stages.build.quantize.recipe import WeightRecipe
from tunepress.config.build import SAMPLES
from tunepress.core.files import write_json
from tunepress.core.stage import peak_memory_mb
from tunepress.models.random_model import byte_tokenizer

RESULTS = Path(__file__).resolve().parent / "results" / "gptq.json"
LAYERS = 2
TOKENS = 26  # of a row: the mean of the default rows
PACKAGES = ("torch", "transformers")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gptq", description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=["phi3-mini", "tiny"], default="phi3-mini", help="of the model")
    shape = parser.parse_args().shape
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        load = load_at_start(console)
        with tempfile.TemporaryDirectory(prefix="tunepress-") as scratch:
            measured = {"load_at_start": load, "shape": shape, **measure(shape, Path(scratch))}
        console.print(table(measured))
        if shape != "tiny":
            write_json(RESULTS, {**circumstances(PACKAGES), **measured})
            console.print(f"written to {RESULTS}")
    except KeyboardInterrupt:
        sys.exit("benchmarks.gptq: interrupted")


def measure(shape: str, folder: Path) -> dict[str, Any]:
    """Makes a model of a shape in `folder` and rounds it."""
    config = Phi3Config(**SHAPES[shape].config | {"num_hidden_layers": LAYERS}, dtype="bfloat16", pad_token_id=0)
    make(config, folder)
    before = peak_memory_mb()
    source = SourceModel(folder)
    recipe = WeightRecipe.of("int4", "cpu", Builder("int4", "cpu", []).options(folder), LAYERS)
    rows = torch.randint(config.vocab_size, (SAMPLES, TOKENS), generator=torch.Generator().manual_seed(0)).tolist()
    start = time.perf_counter()
    matrices = sum(len(layer) for layer in quantize_with_gptq(source, recipe, rows))
    seconds = (time.perf_counter() - start) / LAYERS
    return {
        "rows": SAMPLES,
        "layers": LAYERS,
        "of_layers": SHAPES[shape].config["num_hidden_layers"],
        "matrices": matrices,
        "seconds_a_layer": round(seconds, 1),
        "peak_memory_mb_before": before,
        "peak_memory_mb": peak_memory_mb(),
    }


def make(config: Phi3Config, folder: Path) -> None:
    """Writes a model with random weights, file by file."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    write_weights({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, folder)


def table(measured: dict[str, Any]) -> Table:
    """One line."""
    shown = Table(title=f"gptq by {measured['rows']} rows, {measured['shape']}")
    for column in ("matrices a layer", "seconds a layer", f"of {measured['of_layers']} layers", "peak memory"):
        shown.add_column(column, justify="right")
    minutes = measured["seconds_a_layer"] * measured["of_layers"] / 60
    shown.add_row(
        str(measured["matrices"] // measured["layers"]),
        f"{measured['seconds_a_layer']:.1f} s",
        f"{minutes:.0f} min",
        f"{measured['peak_memory_mb'] / 1000:.1f} GB",
    )
    return shown


if __name__ == "__main__":
    main()
