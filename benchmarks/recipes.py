"""Estimates the memory and the time of every recipe for a model of the Hub on one GPU, as `train` does before it starts.

    python -m benchmarks.recipes        # half a minute; needs no GPU, and trains nothing

Memory is that of the largest batch that a recipe allows: as many rows of data.source_max_len tokens as are in a batch. The time
is that of a million tokens at the share of the GPU's rate that training reaches here on a CPU (`python -m benchmarks.train`).
Neither has been compared with a GPU.
"""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, main, table
from benchmarks.processes import ROOT, Figures, call, workspace

GPU: Figures = {
    "name": "NVIDIA GeForce RTX 4090",
    "memory_gb": 24,
    "bf16_tflops": 165.2,
}  # dense, with float32 sums: NVIDIA's data sheet
TOKENS = 1_000_000
LABELS = 0.25  # share of the tokens that are learned


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Estimates each recipe in a process of its own."""
    names = sorted(file.stem for file in (ROOT / "conf/experiment").glob("*_*lora.yaml"))
    with console.status("estimating"):
        recipes, _ = call("benchmarks.recipes:estimates", workspace(scratch, "conf"), kernels=True, names=names)
    return {"gpu": GPU, "recipes": recipes}


def estimates(names: list[str]) -> Figures:
    """Parameters, bytes and seconds of each recipe, by its name."""
    from stages.train.estimate import EFFICIENCY, estimated_bytes, passes
    from tools.doctor.recipe import Recipe, outline_of

    figures = {}
    for name in names:
        recipe = Recipe.read([f"+experiment={name}"])
        model = outline_of(Recipe(recipe.params, base_fetched=False))
        assert model is not None, name
        train, quantized = recipe.params.train, recipe.params.adapter.method.quantized
        tokens = train.per_device_train_batch_size * recipe.params.data.source_max_len
        needed = estimated_bytes(model, train, quantized, tokens, int(LABELS * tokens), on_cpu=False)
        trained, parameters = model.get_nb_trainable_parameters()
        seconds = 2 * parameters * TOKENS * passes(train) / (GPU["bf16_tflops"] * 1e12 * EFFICIENCY)
        figures[name] = {
            "parameters": parameters,
            "trained": trained,
            "batch_tokens": tokens,
            "bytes": needed,
            "seconds": seconds,
        }
    return figures


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """One line for each recipe."""
    columns = ("recipe", "parameters", "trained", "memory", "a million tokens")
    rows = [
        (
            name,
            f"{figures['parameters'] / 1e6:,.0f} M",
            f"{figures['trained'] / 1e6:.1f} M",
            f"{figures['bytes'] / 1e9:.1f} GB",
            f"{figures['seconds'] / 60:.1f} min",
        )
        for name, figures in measured["recipes"].items()
    ]
    yield table(f"estimates for {measured['gpu']['name']}", columns, rows)


BENCHMARK = Benchmark("recipes", __doc__, ("torch", "transformers", "peft"), measure, report)

if __name__ == "__main__":
    main(BENCHMARK)
