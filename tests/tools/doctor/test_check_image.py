"""A mismatch between a driver and an image is reported in one line; the versions come from the libraries themselves."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.doctor import check_image
from tools.doctor.check_image import Cuda, Driver, driver_of_host, find_mismatch, pins, provider_here, target_of
from tunepress.core import environment

GOOD = {
    "cuda13": Cuda(Driver("580.95.05", "13.0"), 1, "13.0", "9.20.0", "13.0", None),
    "cuda12": Cuda(Driver("535.104.12", "12.2"), 2, "12.8", "9.10.2", None, None),
    "serve-cuda12": Cuda(Driver("535.104.12", "12.2"), None, None, "9.10.2", "12.8", None),
}
NVML = """
#include <string.h>
int nvmlInit_v2(void) { return FAILS; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "580.95.05", length); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13010; return 0; }
"""


def mismatch(lock: str, cuda: Cuda) -> str | None:
    target = target_of(f"requirements/{lock}.txt")
    message = find_mismatch(target, cuda, pins(target), environment.locked_versions(f"requirements/{lock}.txt"))
    assert message is None or "\n" not in message
    return message


def check(root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "tools.doctor.check_image"]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=100)


def library_of_nvml(folder: Path, fails: int) -> Path:
    """A library with the functions of NVIDIA's that are called, as no driver is here."""
    (folder / "nvml.c").write_text(NVML, encoding="utf-8")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", f"-DFAILS={fails}", "-o", library, folder / "nvml.c"], check=True)
    return folder


@pytest.mark.parametrize("lock", GOOD)
def test_what_fits_is_not_reported(lock: str) -> None:
    assert mismatch(lock, GOOD[lock]) is None


@pytest.mark.parametrize(
    ("lock", "change", "message"),
    [
        ("cuda13", {"driver": None}, "cuda13: no NVIDIA driver in this container; start it with a GPU (GPUS=all), or"),
        (
            "cuda13",
            {"driver": Driver("570.86.15", "12.8")},
            "cuda13: driver 570.86.15 runs CUDA 12.8 at most, and CUDA 13.0 needs driver 580 or newer; update it, or use the "
            "image for cuda12",
        ),
        ("cuda12", {"driver": Driver("470.57.02", "11.4")}, "cuda12: driver 470.57.02 runs CUDA 11.4 at most, and"),
        ("cuda13", {"torch": None}, "cuda13: torch was built for no CUDA, the lock has CUDA 13.0"),
        ("cuda12", {"torch": "13.0"}, "cuda12: torch was built for CUDA 13.0, the lock has CUDA 12.8"),
        ("cuda13", {"gpus": 0}, "cuda13: torch sees no GPU, though there is driver 580.95.05; check GPUS"),
        ("cuda13", {"cudnn": "9.10.2"}, "cuda13: cuDNN is 9.10.2, the lock has 9.20.0.48"),
        ("serve-cuda12", {"cudnn": None}, "cuda12: cuDNN is missing, the lock has 9.10.2.21"),
        ("serve-cuda12", {"onnxruntime": "13.0"}, "cuda12: onnxruntime was built for CUDA 13.0, the lock has CUDA 12.8"),
        ("cuda13", {"onnxruntime": None}, "cuda13: onnxruntime was built for no CUDA"),
        (
            "cuda13",
            {"provider": "no libcudnn.so.9"},
            "cuda13: onnxruntime has no CUDAExecutionProvider (no libcudnn.so.9); rebuild",
        ),
    ],
)
def test_the_first_thing_that_does_not_fit_is_named_with_the_cure(lock: str, change: dict[str, object], message: str) -> None:
    assert (mismatch(lock, replace(GOOD[lock], **change)) or "").startswith(message)  # type: ignore[arg-type]


def test_an_image_that_only_serves_asks_no_torch() -> None:
    assert mismatch("serve-cuda12", replace(GOOD["serve-cuda12"], torch=None, gpus=None)) is None


@pytest.mark.parametrize(("lock", "target"), [("cpu", "cpu"), ("serve", "cpu"), ("cuda13", "cuda13"), ("serve-cuda12", "cuda12")])
def test_the_lock_tells_what_an_image_is_for(lock: str, target: str) -> None:
    assert target_of(f"requirements/{lock}.txt") == target


def test_an_image_for_the_cpu_asks_for_no_driver(root: Path) -> None:
    done = check(root, TUNEPRESS_LOCK="requirements/cpu.txt")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_packages_that_are_not_those_of_the_lock_end_it(root: Path) -> None:
    done = check(root, TUNEPRESS_LOCK="requirements/cuda13.txt")
    assert done.returncode == 1
    assert done.stderr.startswith("image: requirements/cuda13.txt: has no onnxruntime, but 1.32.0 is installed; ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("fails", "driver"), [(0, "Driver(version='580.95.05', cuda='13.1')"), (9, "None")])
def test_the_driver_is_asked_itself(fails: int, driver: str, root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tools.doctor.check_image import driver_of_host; print(driver_of_host())"]
    environment = {"LD_LIBRARY_PATH": str(library_of_nvml(tmp_path, fails))}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == driver, done.stderr


@pytest.mark.skipif(driver_of_host() is not None, reason="there is a driver here")
def test_without_a_driver_nothing_else_is_asked() -> None:
    assert check_image.installed_cuda() == Cuda(None, None, None, None, None, None)


def test_the_cpu_build_of_onnxruntime_has_no_cuda() -> None:
    assert provider_here() == (None, None)
