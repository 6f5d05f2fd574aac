"""Measures one contender of benchmarks/inference.py, in whichever environment it runs.

python -m benchmarks.inference_contender JOB REPORT
"""

import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.children import read_json
from stages.benchmark.speed import Runtime, Workload, measure
from tunepress.core import KERNELS
from tunepress.core.errors import InputError
from tunepress.core.files import size_mb, write_json

BEGINNINGS = 16  # of the prompt, after which contenders are compared


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Figures of stages/benchmark/speed.py, the size of the model, and the token it chose after each beginning of the prompt.

    Args:
        job: `contender`, `path` of its model, `prompt` as token ids, `threads`, and `workload` as fields of `Workload`.
    """
    workload = Workload(**(job["workload"] | {"batch_sizes": tuple(job["workload"]["batch_sizes"])}))
    path = Path(job["path"])
    runtime = load(job["contender"], path, job["threads"], workload.prompt_tokens + workload.new_tokens)
    measured = measure(runtime, job["prompt"], workload)
    return {**measured, "size_mb": size_mb(path), "chosen": chosen(runtime, job["prompt"])}


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
    from benchmarks.llama_cpp_runtime import LlamaCppRuntime

    return LlamaCppRuntime(path, threads, tokens)


def chosen(runtime: Runtime, prompt: list[int]) -> list[int]:
    """The first new token after BEGINNINGS beginnings of the prompt, each longer than the one before by as much."""
    lengths = [max(1, len(prompt) * number // BEGINNINGS) for number in range(1, BEGINNINGS + 1)]
    return [runtime.prefill([prompt[:length]], 1)[0] for length in lengths]


if __name__ == "__main__":
    for name in KERNELS:  # a user's torch is measured, with the kernels that it chooses
        os.environ.pop(name, None)
    try:
        write_json(Path(sys.argv[2]), main(read_json(Path(sys.argv[1]))))
    except InputError as error:
        sys.exit(str(error))
