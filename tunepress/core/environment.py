"""The environment of a run: its container image, and the packages that determine its result, compared with the lock file."""

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from tunepress.core.errors import InputError

PACKAGES = (  # those that determine the result of a run; a build for a GPU has another name
    "accelerate", "bitsandbytes", "datasets", "dvc", "gguf", "hydra-core", "numpy", "onnx", "onnx-ir", "onnxruntime",
    "onnxruntime-gpu", "onnxruntime-genai", "onnxruntime-genai-cuda", "peft", "rouge-score", "safetensors", "scikit-learn",
    "scipy", "sentencepiece", "tokenizers", "torch", "transformers",
)  # fmt: skip

ROOT = Path(__file__).resolve().parents[2]  # of the code; a test's working folder has no lock files
IMAGE = "TUNEPRESS_IMAGE"  # name@sha256:..., set by docker/run
SHORT = 12  # digits of a digest, as container engines show them


@dataclass
class Environment:
    """The group `environment` of conf/."""

    lock: str  # a file of requirements/ with exact versions, on which every stage depends


def check(lock: str) -> None:
    """Compares the installed packages with a lock file.

    Builds of one version differ in a suffix (2.13.0+cpu), which a lock file does not contain.

    Args:
        lock: the value of environment.lock, relative to the project's root.

    Raises:
        InputError: the lock file does not exist, or one of PACKAGES has another version.
    """
    expected, installed = locked_versions(lock), installed_versions()
    for name in PACKAGES:
        version = installed.get(name)
        if (version and Version(version).public) != expected.get(name):
            locked = f"says {name} {expected[name]}" if name in expected else f"has no {name}"
            raise InputError(
                f"{lock}: {locked}, but {version or 'none'} is installed; choose the environment that is installed "
                f"(dvc exp run -S environment=...), or install this one (`make setup` installs cpu)"
            )


def locked_versions(lock: str) -> dict[str, str]:
    """The versions of a lock file that apply to this machine, by package.

    Raises:
        InputError: the lock file does not exist.
    """
    path = ROOT / lock
    if not path.exists():
        raise InputError(f"environment.lock: {lock} not found; the available ones are in conf/environment/")
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    pins = [Requirement(line) for line in lines if line]
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in pins if pin.marker is None or pin.marker.evaluate()}


def installed_versions() -> dict[str, str]:
    """The versions of Python and of the installed PACKAGES."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def current_image() -> dict[str, str] | None:
    """The container image of this process, with a name short enough for a table and its full digest; None outside a container."""
    name, _, digest = os.environ.get(IMAGE, "").partition("@")
    algorithm, _, digits = digest.partition(":")
    return {"name": f"{name}@{digits[:SHORT]}", "digest": f"{algorithm}:{digits}"} if digits else None
