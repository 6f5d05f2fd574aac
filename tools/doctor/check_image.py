"""The check that every container runs first: do its packages fit together, and with the driver of the host?

    python -m tools.doctor.check_image

The packages must be those of the image's lock. With CUDA, the versions come from the driver, cuDNN, torch and onnxruntime's CUDA
provider themselves. The first mismatch is reported in one line.
"""

import ctypes
import os
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from tunepress.core import environment
from tunepress.core.errors import InputError, one_line

LOCK = "TUNEPRESS_LOCK"  # the image's, set in its Dockerfile
PINS = "docker/versions.env"
PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver on the host.

    Attributes:
        version: such as 580.95.05.
        cuda: the newest CUDA that it supports, such as 13.0.
    """

    version: str
    cuda: str


@dataclass(frozen=True)
class Cuda:
    """The CUDA environment of a container; None for what is missing.

    Attributes:
        driver: of the host.
        gpus: number of GPUs that torch sees; None in an image without torch.
        torch: the CUDA that torch was built for.
        cudnn: the version of cuDNN's library.
        onnxruntime: the CUDA that onnxruntime was built for; None for its CPU build.
        provider: why onnxruntime's CUDA provider cannot be loaded; None if it can.
    """

    driver: Driver | None
    gpus: int | None
    torch: str | None
    cudnn: str | None
    onnxruntime: str | None
    provider: str | None


def main() -> None:
    lock = os.environ.get(LOCK, "requirements/cpu.txt")
    try:
        environment.check(lock)
        target = target_of(lock)
        problem = (
            find_mismatch(target, installed_cuda(), pins(target), environment.locked_versions(lock)) if target != "cpu" else None
        )
    except InputError as error:
        problem = str(error)
    if problem:
        sys.exit(f"image: {problem}")


def target_of(lock: str) -> str:
    """The target of an image by its lock: cpu, cuda13 or cuda12."""
    name = Path(lock).stem.removeprefix("serve").removeprefix("-")
    return name or "cpu"


def find_mismatch(target: str, cuda: Cuda, pinned: dict[str, str], locked: dict[str, str]) -> str | None:
    """The first mismatch and its cure in one line; None if everything fits.

    Args:
        target: of the image.
        cuda: that is installed.
        pinned: of docker/versions.env for this target: DRIVER, CUDA and CUDNN.
        locked: versions by package.
    """
    required, minor = pinned["DRIVER"], ".".join(pinned["CUDA"].split(".")[:2])
    if cuda.driver is None:
        return f"{target}: no NVIDIA driver in this container; start it with a GPU (GPUS=all), or use the image for cpu"
    if number(cuda.driver.version) < number(required) or number(cuda.driver.cuda)[0] < number(minor)[0]:
        older = "use the image for cuda12" if target == "cuda13" else "use the image for cpu"
        return (
            f"{target}: driver {cuda.driver.version} runs CUDA {cuda.driver.cuda} at most, and CUDA {minor} needs driver "
            f"{required} or newer; update it, or {older}"
        )
    if "torch" in locked and cuda.torch != minor:
        return f"{target}: torch was built for {cuda_name(cuda.torch)}, the lock has CUDA {minor}; rebuild the image"
    if cuda.gpus == 0:
        return f"{target}: torch sees no GPU, though there is driver {cuda.driver.version}; check GPUS and CUDA_VISIBLE_DEVICES"
    if cuda.cudnn is None or number(cuda.cudnn) != number(pinned["CUDNN"])[:3]:
        return f"{target}: cuDNN is {cuda.cudnn or 'missing'}, the lock has {pinned['CUDNN']}; rebuild the image"
    if "onnxruntime-gpu" not in locked:
        return None
    if cuda.onnxruntime is None or number(cuda.onnxruntime)[0] != number(minor)[0]:
        return f"{target}: onnxruntime was built for {cuda_name(cuda.onnxruntime)}, the lock has CUDA {minor}; rebuild the image"
    return f"{target}: onnxruntime has no {PROVIDER} ({cuda.provider}); rebuild the image" if cuda.provider else None


def cuda_name(cuda: str | None) -> str:
    """The CUDA that a package was built for, as text."""
    return f"CUDA {cuda}" if cuda else "no CUDA"


def number(version: str) -> tuple[int, ...]:
    """A version as a tuple that can be compared."""
    return tuple(int(part) for part in version.split("."))


def pins(target: str) -> dict[str, str]:
    """The pins of docker/versions.env for a target, without its prefix."""
    lines = (environment.ROOT / PINS).read_text(encoding="utf-8").splitlines()
    prefix = f"{target.upper()}_"
    return dict(line.removeprefix(prefix).split("=", 1) for line in lines if line.startswith(prefix))


def installed_cuda() -> Cuda:
    driver = driver_of_host()
    if driver is None:
        return Cuda(None, None, None, None, None, None)
    torch, gpus = torch_here()
    built_for, provider = provider_here()
    return Cuda(driver, gpus, torch, cudnn_here(), built_for, provider)


def driver_of_host() -> Driver | None:
    """The driver by NVIDIA's management library, which the container engine adds to a container with GPUs."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    text, cuda = ctypes.create_string_buffer(80), ctypes.c_int()
    calls = (  # of nvml.h; each returns 0 on success
        (nvml.nvmlInit_v2,),
        (nvml.nvmlSystemGetDriverVersion, text, len(text)),
        (nvml.nvmlSystemGetCudaDriverVersion_v2, ctypes.byref(cuda)),
    )
    if any(call(*arguments) for call, *arguments in calls):
        return None
    return Driver(text.value.decode(), f"{cuda.value // 1000}.{cuda.value % 1000 // 10}")


def torch_here() -> tuple[str | None, int | None]:
    """The CUDA that torch was built for, and the number of GPUs that it sees; None and None without torch."""
    if find_spec("torch") is None:
        return None, None
    import torch

    return torch.version.cuda, torch.cuda.device_count()


def cudnn_here() -> str | None:
    """The version of cuDNN's library; None if its wheel is not installed."""
    for major in (13, 12):
        try:
            wheel = metadata.distribution(f"nvidia-cudnn-cu{major}")
        except metadata.PackageNotFoundError:
            continue
        number = ctypes.CDLL(str(wheel.locate_file("nvidia/cudnn/lib/libcudnn.so.9"))).cudnnGetVersion()
        return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"  # cudnn_version.h, since version 9
    return None


def provider_here() -> tuple[str | None, str | None]:
    """The CUDA that onnxruntime was built for, and why its CUDA provider cannot be loaded; None if it can, or without CUDA."""
    import onnxruntime
    from onnxruntime.capi import build_and_package_info as build

    built_for = getattr(build, "cuda_version", "") or None
    if built_for is None:
        return None, None
    if PROVIDER not in onnxruntime.get_available_providers():
        return built_for, "the build has none"
    onnxruntime.preload_dlls()
    library = Path(onnxruntime.__file__).with_name("capi") / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(library.with_name("libonnxruntime_providers_shared.so")), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        return built_for, one_line(error)
    return built_for, None


if __name__ == "__main__":
    main()
