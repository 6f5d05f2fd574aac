"""benchmark: measures how fast one model (merged or onnx) answers, and the memory that it takes.

    python -m stages.benchmark onnx

Each model runs in a process of its own, so its peak memory is its own. The figures differ from run to run and from machine
to machine; they lie apart from the reproducible ones, and nothing reproducible depends on them.
"""

import platform
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from stages.lib.cores import cores
from stages.lib.edge.errors import InputError
from stages.lib.edge.outputs import read_jsonl, size_mb, write_json
from stages.lib.edge.paths import MERGED, METRICS, ONNX, PREPARED
from stages.lib.edge.stage import peak_memory_mb, run
from stages.lib.likelihood import Tokens
from stages.lib.schema.benchmark import Benchmark
from stages.lib.speed import Runtime, measure, prompt_of

MODELS = {"merged": MERGED, "onnx": ONNX}


@dataclass
class Sections:
    """What this stage reads of params.yaml."""

    benchmark: Benchmark


class Model(Runtime, Protocol):
    """What is measured."""

    def encode_prompt(self, text: str) -> Tokens:
        """Tokens of a prompt."""


def main(name: str, cfg: Sections) -> str:
    """Writes metrics/benchmark/<name>.json."""
    load = cfg.benchmark
    check(load)
    folder = MODELS[name]
    rows = read_jsonl(PREPARED / "test.jsonl")
    start = time.perf_counter()
    model = open_model(name)
    load_seconds = round(time.perf_counter() - start, 2)
    prompt = prompt_of([model.encode_prompt(row["prompt"]) for row in rows], load.prompt_tokens)
    batches = {
        f"batch_{size}": measure(model, prompt, load.new_tokens, size, load.warm_up, load.repetitions)
        for size in load.batch_sizes
    }
    figures = {
        "machine": machine(),
        "prompt_tokens": load.prompt_tokens,
        "new_tokens": load.new_tokens,
        "repetitions": load.repetitions,
        "load_seconds": load_seconds,
        "peak_memory_mb": peak_memory_mb(),
        "size_mb": size_mb(folder),
    }
    write_json(METRICS / "benchmark" / f"{name}.json", figures | batches)
    alone = batches["batch_1"]
    return (
        f"{alone['decode_tokens_per_second']['median']:.1f} tokens/s, the first after "
        f"{alone['time_to_first_token_ms']['median']:.0f} ms of {load.prompt_tokens} tokens"
    )


def check(load: Benchmark) -> None:
    """Raises InputError unless the work can be measured."""
    least = {"prompt_tokens": 1, "new_tokens": 2, "warm_up": 0, "repetitions": 1}  # new_tokens: the first is apart
    for name, bound in least.items():
        if getattr(load, name) < bound:
            raise InputError(f"benchmark.{name}: {getattr(load, name)} is too few; {bound} or more")
    if 1 not in load.batch_sizes or min(load.batch_sizes) < 1:
        raise InputError(f"benchmark.batch_sizes: {list(load.batch_sizes)} wants 1 among them, the figure that is compared")


def open_model(name: str) -> Model:
    """The model. Only its own runtime is imported: the int4 model needs no torch."""
    if name == "onnx":
        from stages.lib.onnx_model import OnnxModel

        return OnnxModel(ONNX)
    from stages.lib.torch_model import TorchModel

    return TorchModel(MERGED)


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"cpu": cpu or platform.machine(), "cores": cores(), "gpu": gpu()}


def gpu() -> str | None:
    """The GPU that torch uses, None without one or where torch is not loaded."""
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch and torch.cuda.is_available() else None


if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in MODELS:
        sys.exit(f"benchmark: names no model; use python -m stages.benchmark {{{','.join(MODELS)}}}")
    run(f"benchmark_{sys.argv[1]}", partial(main, sys.argv[1]), Sections, sys.argv[2:])
