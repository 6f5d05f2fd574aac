"""benchmark: measures how fast one model (merged or onnx) answers, and the memory that it takes.

    python -m stages.benchmark onnx

Each model runs in a process of its own, so its peak memory is its own. The figures differ from run to run and from machine
to machine; they lie apart from the reproducible ones, and nothing reproducible depends on them.
"""

import platform
import sys
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Protocol

from stages.benchmark.speed import Runtime, Workload, measure
from tunepress.config.benchmark import Benchmark
from tunepress.core.cpu import available_cores
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl, size_mb, write_json
from tunepress.core.paths import MERGED, METRICS, ONNX, PREPARED
from tunepress.core.stage import peak_memory_mb

MODELS = {"merged": MERGED, "onnx": ONNX}


@dataclass
class Config:
    """What this stage reads of params.yaml."""

    benchmark: Benchmark


class Reader(Runtime, Protocol):
    """A runtime that reads texts.

    Attributes:
        context_length: tokens of a prompt and its answer that the model has room for; None where it does not say.
    """

    context_length: int | None

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""


def main(name: str, cfg: Config) -> str:
    """Writes metrics/benchmark/<name>.json."""
    workload = workload_of(cfg.benchmark)
    rows = read_jsonl(PREPARED / "test.jsonl")
    if not rows:
        raise InputError(f"{PREPARED / 'test.jsonl'}: no rows, whose prompts are measured; set data.test_size or data.test_files")
    text = "\n".join(row["prompt"] for row in rows)
    runtime = open_runtime(name)
    check_context(runtime, workload)
    prompt = list(islice(cycle(runtime.encode(text)), workload.prompt_tokens))
    figures = {
        "machine": machine(),
        "prompt_tokens": workload.prompt_tokens,
        "new_tokens": workload.new_tokens,
        "repetitions": workload.repetitions,
        **measure(runtime, prompt, workload),
        "peak_memory_mb": peak_memory_mb(),
        "size_mb": size_mb(MODELS[name]),
    }
    write_json(METRICS / "benchmark" / f"{name}.json", figures)
    first, rest = (figures["batch_1"][key]["median"] for key in ("time_to_first_token_ms", "decode_tokens_per_second"))
    return f"{rest:.1f} tokens/s, the first after {first:.0f} ms of {workload.prompt_tokens} tokens"


def workload_of(benchmark: Benchmark) -> Workload:
    """The work that is measured.

    Raises:
        InputError: there would be nothing to measure.
    """
    if 1 not in benchmark.batch_sizes:
        raise InputError(f"benchmark.batch_sizes: {list(benchmark.batch_sizes)} wants 1 among them, the figure that is compared")
    try:
        return Workload(**vars(benchmark) | {"batch_sizes": tuple(benchmark.batch_sizes)})
    except InputError as error:
        raise InputError(f"benchmark.{error}") from error


def check_context(runtime: Reader, workload: Workload) -> None:
    """Raises InputError where the model has no room for the prompt and its answer."""
    wanted, length = workload.prompt_tokens + workload.new_tokens, runtime.context_length
    if length is not None and wanted > length:
        raise InputError(
            f"benchmark: prompt_tokens {workload.prompt_tokens} and new_tokens {workload.new_tokens} do not fit the model's "
            f"context of {length}; make them smaller"
        )


def open_runtime(name: str) -> Reader:
    """The model, on all cores. Only its own runtime is imported: the int4 model needs no torch."""
    if name == "onnx":
        from stages.benchmark.onnx_runtime import OnnxRuntime

        return OnnxRuntime(ONNX, available_cores())
    from stages.benchmark.torch_runtime import TorchRuntime

    return TorchRuntime(MERGED, available_cores())


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"cpu": cpu or platform.machine(), "cores": available_cores(), "gpu": gpu()}


def gpu() -> str | None:
    """The GPU that torch uses, None without one or where torch is not loaded."""
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch and torch.cuda.is_available() else None
