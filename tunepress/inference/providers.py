"""Execution providers that a model can be built for, by the builder's names: how one is made ready, and what it takes."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec

import onnxruntime_genai as og

REQUIREMENTS = {
    "cuda": "an NVIDIA GPU with driver 580 or newer and, in place of onnxruntime-genai and onnxruntime, onnxruntime-genai-cuda "
    "and onnxruntime-gpu for CUDA 13",
    "dml": "Windows with a DirectX 12 GPU and, in place of onnxruntime-genai and onnxruntime, onnxruntime-genai-directml",
    "webgpu": "a GPU with a driver for Vulkan, Direct3D 12 or Metal and, beside onnxruntime-genai, onnxruntime-ep-webgpu",
    "NvTensorRtRtx": "an NVIDIA RTX GPU, onnxruntime-genai-cuda in place of onnxruntime-genai and onnxruntime-ep-nv-tensorrt-rtx",
}
# Packages that bring a provider as a library of its own, which must be registered. og.is_webgpu_available() only says that
# onnxruntime-genai could use it, and is true without.
PLUGINS = {"webgpu": "onnxruntime_ep_webgpu", "NvTensorRtRtx": "onnxruntime_ep_nv_tensorrt_rtx"}


@cache
def register(provider: str) -> None:
    """Makes a provider ready: one that is a library of its own becomes known to onnxruntime-genai, where its package is there.

    CUDA and cuDNN lie in wheels beside onnxruntime-gpu, where the loader doesn't look by itself; a CPU build has nothing to load.
    """
    if provider == "cuda":
        import onnxruntime

        onnxruntime.preload_dlls()
    plugin = PLUGINS.get(provider)
    if plugin and find_spec(plugin):
        module = import_module(plugin)
        og.register_execution_provider_library(module.get_ep_name(), module.get_library_path())


def load_problem(provider: str, said: str) -> str:
    """What to say where a model does not load, and onnxruntime said why."""
    if provider not in REQUIREMENTS:
        return f"onnxruntime-genai cannot load this model ({said}); build it again with other options"
    return f"the model is built for {provider}, which does not run here ({said}); it needs {REQUIREMENTS[provider]}"
