"""Execution providers for which a model can be built, by the builder's names: their requirements and registration."""

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
# Packages with a provider in a separate library, which must be registered. og.is_webgpu_available() only says that
# onnxruntime-genai could use the provider, and is true without the package.
PLUGINS = {"webgpu": "onnxruntime_ep_webgpu", "NvTensorRtRtx": "onnxruntime_ep_nv_tensorrt_rtx"}


@cache
def register(provider: str) -> None:
    """Loads what a provider needs: a separate library is registered with onnxruntime-genai, if its package is installed.

    CUDA and cuDNN are in wheels next to onnxruntime-gpu, where the loader does not find them by itself. A CPU build has nothing
    to load.
    """
    if provider == "cuda":
        import onnxruntime

        onnxruntime.preload_dlls()
    plugin = PLUGINS.get(provider)
    if plugin and find_spec(plugin):
        module = import_module(plugin)
        og.register_execution_provider_library(module.get_ep_name(), module.get_library_path())


def load_problem(provider: str, reason: str) -> str:
    """The error message for a model that does not load, with onnxruntime's reason."""
    if provider not in REQUIREMENTS:
        return f"onnxruntime-genai cannot load this model ({reason}); build it again with other options"
    return f"the model is built for {provider}, which does not run here ({reason}); it needs {REQUIREMENTS[provider]}"
