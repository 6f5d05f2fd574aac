"""Cores, GPUs, driver, CUDA and onnxruntime, and whether the recipe can train and run its model on them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from tools.doctor import check_image
from tools.doctor.finding import Finding, error, ok, warning
from tools.doctor.recipe import Recipe
from tunepress.core import environment
from tunepress.core.cpu import available_cores
from tunepress.core.errors import InputError

GB = 1e9


def findings(recipe: Recipe) -> Iterator[Finding]:
    gpus = names_of_gpus()
    yield ok("CPU", f"{available_cores()} of {os.cpu_count()} cores for this process")
    yield gpu(gpus, recipe)
    yield driver(check_image.installed_cuda(), recipe)
    if recipe.trains:
        yield training(recipe)
    yield provider(recipe.params.build.execution_provider)


def names_of_gpus() -> list[str]:
    """The GPUs of NVIDIA's management library, with memory and compute capability; empty without a driver."""
    import pynvml  # type: ignore[import-untyped]

    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        return [describe(pynvml.nvmlDeviceGetHandleByIndex(number)) for number in range(pynvml.nvmlDeviceGetCount())]
    return []


def describe(handle: object) -> str:
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    free = f"{memory.free / GB:.0f} of {memory.total / GB:.0f} GB free"
    return f"{pynvml.nvmlDeviceGetName(handle)} (compute {major}.{minor}, {free})"


def gpu(names: list[str], recipe: Recipe) -> Finding:
    """The GPUs, which a recipe in bfloat16 needs to be fast."""
    if names:
        return ok("GPU", "; ".join(names))
    if recipe.trains and recipe.params.train.bf16:
        advice = "training on the CPU takes hours instead of minutes; use `make docker-train` on a machine with a GPU"
        return warning("GPU", "no NVIDIA GPU, and train.bf16=true is meant for one", advice)
    return ok("GPU", "no NVIDIA GPU; the recipe needs none")


def driver(cuda: check_image.Cuda, recipe: Recipe) -> Finding:
    """Compares the driver with the CUDA of torch, cuDNN and onnxruntime, as the containers do when they start."""
    lock = recipe.params.environment.lock
    target = check_image.target_of(lock)
    if target != "cpu":
        mismatch = check_image.find_mismatch(target, cuda, check_image.pins(target), environment.locked_versions(lock))
        if mismatch:
            detail, _, advice = mismatch.partition("; ")
            needed = recipe.params.build.execution_provider == "cuda"
            return error("driver, CUDA", detail, advice) if needed else warning("driver, CUDA", detail, advice)
    if cuda.driver is None:
        return ok("driver, CUDA", "no NVIDIA driver; torch and onnxruntime use the CPU")
    built = f"driver {cuda.driver.version} runs CUDA {cuda.driver.cuda}, torch is built for {check_image.cuda_name(cuda.torch)}"
    if not cuda.gpus:
        return warning(
            "driver, CUDA", f"{built} and sees no GPU", "-S environment=cuda13 or cuda12, or their image: `make docker-train`"
        )
    return ok("driver, CUDA", f"{built}, onnxruntime for {check_image.cuda_name(cuda.onnxruntime)}")


def training(recipe: Recipe) -> Finding:
    """Whether transformers accepts the group `train` on this machine, checked as in the stage."""
    from stages.train.arguments import training_arguments  # torch and transformers: seconds

    train = recipe.params.train
    if train.attn_implementation.startswith("flash") and not find_spec("flash_attn"):
        advice = "install flash-attn, or train.attn_implementation=sdpa_by_example"
        return error("training", f"train.attn_implementation={train.attn_implementation}, but no flash-attn", advice)
    try:
        training_arguments(train, recipe.params.seed, Path(), validated=True)
    except InputError as problem:
        return error("training", str(problem), "change that, or use another machine")
    return ok("training", "the values of `train` work here")


def provider(name: str) -> Finding:
    """Whether the model that the recipe builds also runs here, as evaluate, compare and benchmark need it to."""
    from tunepress.inference.providers import REQUIREMENTS

    if runs(name):
        return ok("provider", f"{name} runs here")
    advice = f"it needs {REQUIREMENTS[name]}; or build=cpu_int4"
    return error("provider", f"build can make a model for {name}, but evaluate cannot run it here", advice)


def runs(name: str) -> bool:
    """Whether the installed onnxruntime-genai has a provider, or the package with it is installed."""
    import onnxruntime_genai as og

    from tunepress.inference.providers import PLUGINS

    if name in PLUGINS:
        return find_spec(PLUGINS[name]) is not None
    return {"cpu": True, "cuda": og.is_cuda_available(), "dml": og.is_dml_available()}.get(name, False)
