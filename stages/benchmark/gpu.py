"""The NVIDIA GPU and this process's memory on it, from NVIDIA's management library: the ONNX model's process has no torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pynvml  # type: ignore[import-untyped]


def gpu_name() -> str | None:
    """The first GPU's name; None without one."""
    with suppress(pynvml.NVMLError), first_gpu() as gpu:
        return str(pynvml.nvmlDeviceGetName(gpu))
    return None


def gpu_memory_mb() -> int | None:
    """The memory of the first GPU that this process holds now; None if it holds none, or if the driver does not tell.

    torch and onnxruntime keep what they have allocated, so after a run this is the peak.
    """
    with suppress(pynvml.NVMLError), first_gpu() as gpu:
        used = [
            process.usedGpuMemory for process in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu) if process.pid == os.getpid()
        ]
        return used[0] // 1_000_000 if used and used[0] is not None else None
    return None


@contextmanager
def first_gpu() -> Iterator[Any]:
    pynvml.nvmlInit()
    try:
        yield pynvml.nvmlDeviceGetHandleByIndex(0)
    finally:
        pynvml.nvmlShutdown()
