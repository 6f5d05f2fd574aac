"""The environment of a run: the packages that decide what it gives, held against the lock that it depends on, and its image."""

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from tunepress.core.errors import InputError

PACKAGES = (  # those that decide what a run gives; a build for a GPU goes by another name
    "accelerate", "bitsandbytes", "datasets", "dvc", "gguf", "hydra-core", "numpy", "onnx", "onnx-ir", "onnxruntime",
    "onnxruntime-gpu", "onnxruntime-genai", "onnxruntime-genai-cuda", "peft", "rouge-score", "safetensors", "scikit-learn",
    "scipy", "sentencepiece", "tokenizers", "torch", "transformers",
)  # fmt: skip

ROOT = Path(__file__).resolve().parents[2]  # where the code lies; a test's working folder has no locks
IMAGE = "TUNEPRESS_IMAGE"  # name@sha256:..., which docker/run sets
SHORT = 12  # digits of a digest that tell images apart, as container engines show them


@dataclass
class Environment:
    """The group `environment` of conf/."""

    lock: str  # the exact versions, a file of requirements/ on which every stage depends


def check(lock: str) -> None:
    """Looks whether what is installed is what a lock says.

    Builds of one version differ in a suffix (2.13.0+cpu), which a lock does not name.

    Args:
        lock: the value of environment.lock, relative to the project's root.

    Raises:
        InputError: there is no such lock, or a package that decides has another version than it says.
    """
    wanted, found = locked_versions(lock), installed_versions()
    for name in PACKAGES:
        version = found.get(name)
        if (version and Version(version).public) != wanted.get(name):
            said = f"says {name} {wanted[name]}" if name in wanted else f"has no {name}"
            raise InputError(
                f"{lock}: {said}, but {version or 'none'} is installed; choose the environment that is installed "
                f"(dvc exp run -S environment=...), or install this one (`make setup` installs cpu)"
            )


def locked_versions(lock: str) -> dict[str, str]:
    """The versions that a lock says for this machine, by package.

    Raises:
        InputError: there is no such file.
    """
    path = ROOT / lock
    if not path.exists():
        raise InputError(f"environment.lock: {lock} not found; conf/environment/ has those that there are")
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    pins = [Requirement(line) for line in lines if line]
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in pins if pin.marker is None or pin.marker.evaluate()}


def installed_versions() -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def current_image() -> dict[str, str] | None:
    """The image that this runs in, by a name short enough for a table and its whole digest; None outside of any."""
    name, _, digest = os.environ.get(IMAGE, "").partition("@")
    algorithm, _, digits = digest.partition(":")
    return {"name": f"{name}@{digits[:SHORT]}", "digest": f"{algorithm}:{digits}"} if digits else None
