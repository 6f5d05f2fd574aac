"""The task of benchmarks.inference: measures one contender, in the environment of its runtime."""

from pathlib import Path
from typing import Any

from stages.benchmark import speed
from stages.benchmark.speed import Runtime, Workload
from tunepress.core.files import size_mb

BEGINNINGS = 16  # of the prompt, after which contenders are compared


def measure(contender: str, path: str, prompt: list[int], threads: int, workload: dict[str, Any]) -> dict[str, Any]:
    """Figures of stages/benchmark/speed.py, the model's size, and the token chosen after each beginning of the prompt.

    `workload` has the fields of `Workload`.
    """
    work = Workload(**(workload | {"batch_sizes": tuple(workload["batch_sizes"])}))
    runtime = load(contender, Path(path), threads, work.prompt_tokens + work.new_tokens)
    figures = speed.measure(runtime, prompt, work)
    return {**figures, "size_mb": size_mb(Path(path)), "chosen": chosen(runtime, prompt)}


def load(contender: str, path: Path, threads: int, tokens: int) -> Runtime:
    """A contender's loaded model. Only its own runtime is imported."""
    if contender == "onnx":
        from tunepress.inference.onnx_model import OnnxModel

        return OnnxModel(path, threads)
    if contender == "torch":
        import torch

        from tunepress.inference.torch_model import TorchModel

        torch.set_num_threads(threads)
        return TorchModel(path, deterministic=False)
    from benchmarks.inference.llama_cpp_runtime import LlamaCppRuntime

    return LlamaCppRuntime(path, threads, tokens)


def chosen(runtime: Runtime, prompt: list[int]) -> list[int]:
    """The first new token after BEGINNINGS beginnings of the prompt, each longer than the one before by the same length."""
    lengths = [max(1, len(prompt) * number // BEGINNINGS) for number in range(1, BEGINNINGS + 1)]
    return [runtime.prefill([prompt[:length]], 1)[0] for length in lengths]
