"""benchmark: measures how fast one model (merged or onnx) answers, and how much memory it takes.

    python -m stages.benchmark onnx

Each model runs in its own process, so that the peak memory is that of the model. The results differ from run to run and from
machine to machine; they are kept separate from the reproducible ones, and nothing reproducible depends on them.
"""

import platform
import time
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Protocol

from stages.benchmark.gpu import gpu_memory_mb, gpu_name
from stages.benchmark.speed import Runtime, Workload, measure
from tunepress.config.benchmark import Benchmark
from tunepress.core.cpu import available_cores
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl, size_mb, write_json
from tunepress.core.paths import MERGED, METRICS, ONNX, PREPARED
from tunepress.core.stage import peak_memory_mb
from tunepress.text.prompt import Prompt
from tunepress.text.segments import evenly_spaced, last_turn

MODELS = {"merged": MERGED, "onnx": ONNX}
GUIDED_ROWS = 32  # at most, that are answered with guidance and without


@dataclass
class Config:
    benchmark: Benchmark


class Model(Runtime, Protocol):
    """A runtime with a tokenizer.

    Attributes:
        context_length: maximum number of tokens of a prompt and its answer; None if the model does not say.
    """

    @property
    def context_length(self) -> int | None: ...

    def encode_prompt(self, text: str) -> list[int]: ...

    def answers(self, prompts: list[str], max_new_tokens: int, grammar: str | None = None) -> list[str]: ...


def main(name: str, cfg: Config) -> str:
    """Writes metrics/benchmark/<name>.json."""
    workload = make_workload(cfg.benchmark)
    rows = read_jsonl(PREPARED / "test.jsonl")
    if not rows:
        raise InputError(f"{PREPARED / 'test.jsonl'}: no rows to take prompts from; set data.test_size or data.test_files")
    text = "\n".join(last_turn(row).prompt for row in rows)
    model = load(name)
    check_context(model, workload)
    prompt = list(islice(cycle(model.encode_prompt(text)), workload.prompt_tokens))
    metrics = {
        "machine": machine(),
        "prompt_tokens": workload.prompt_tokens,
        "new_tokens": workload.new_tokens,
        "repetitions": workload.repetitions,
        **measure(model, prompt, workload),
        "peak_memory_mb": peak_memory_mb(),
        **({"gpu_memory_mb": gpu_memory} if (gpu_memory := gpu_memory_mb()) else {}),
        "size_mb": size_mb(MODELS[name]),
    }
    if name == "onnx" and (shipped := Prompt.load(ONNX)).guidance:
        prompts = [last_turn(row).prompt for row in evenly_spaced(rows, GUIDED_ROWS)]
        metrics["guidance"] = guidance_speed(model, prompts, shipped)
    write_json(METRICS / "benchmark" / f"{name}.json", metrics)
    first, rate = (metrics["batch_1"][key]["median"] for key in ("time_to_first_token_ms", "decode_tokens_per_second"))
    return f"{rate:.1f} tokens/s, the first after {first:.0f} ms of {workload.prompt_tokens} tokens"


def guidance_speed(model: Model, prompts: list[str], shipped: Prompt) -> dict[str, float]:
    """The mean seconds of a model's answers, free and within its grammar, and their number."""
    seconds = {}
    for name, grammar in {"free_seconds": None, "guided_seconds": shipped.guidance}.items():
        model.answers(prompts[:1], shipped.max_new_tokens, grammar)  # the first is slower
        start = time.perf_counter()
        model.answers(prompts, shipped.max_new_tokens, grammar)
        seconds[name] = float(f"{(time.perf_counter() - start) / len(prompts):.4g}")
    return seconds | {"answers": len(prompts)}


def make_workload(benchmark: Benchmark) -> Workload:
    """The workload that the section `benchmark` describes.

    Raises:
        InputError: there would be nothing to measure.
    """
    if 1 not in benchmark.batch_sizes:
        raise InputError(
            f"benchmark.batch_sizes: must include 1, the batch size that is compared, got {list(benchmark.batch_sizes)}"
        )
    try:
        return Workload(**vars(benchmark) | {"batch_sizes": tuple(benchmark.batch_sizes)})
    except InputError as error:
        raise InputError(f"benchmark.{error}") from error


def check_context(model: Model, workload: Workload) -> None:
    """Raises InputError if the prompt and its answer do not fit the model's context."""
    needed, length = workload.prompt_tokens + workload.new_tokens, model.context_length
    if length is not None and needed > length:
        raise InputError(
            f"benchmark: prompt_tokens {workload.prompt_tokens} and new_tokens {workload.new_tokens} do not fit the model's "
            f"context of {length}; make them smaller"
        )


def load(name: str) -> Model:
    """Loads the model on all cores. Only its own runtime is imported: the int4 model needs no torch."""
    if name == "onnx":
        from tunepress.inference.onnx_model import OnnxModel

        return OnnxModel(ONNX, available_cores())
    import torch

    from tunepress.inference.torch_model import TorchModel

    torch.set_num_threads(available_cores())
    return TorchModel(MERGED, deterministic=False)


def machine() -> dict[str, Any]:
    """The hardware that was measured."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"cpu": cpu or platform.machine(), "cores": available_cores(), "gpu": gpu_name()}
