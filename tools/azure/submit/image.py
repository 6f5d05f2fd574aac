"""The environment of a node: an image to build, an existing image, or one with a conda file."""

import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.azure.submit.settings import DOCKER, LOCK, Environment
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output

CONTEXT = "context"
CONDA = "conda.yaml"
DOCKERFILE = "Dockerfile"
VERSIONS = Path("docker/versions.env")
CHANNEL = "conda-forge"
SYSTEM = ("git", "make", "pip")  # what the pipeline needs besides Python and its packages


def describe(environment: Environment, folder: Path) -> dict[str, Any]:
    """Returns the environment for the job's YAML, and writes the files that it refers to.

    Args:
        environment: of the settings.
        folder: of the YAML.

    Raises:
        InputError: a file that the settings name does not exist.
    """
    if environment.image and environment.conda_file == LOCK:
        write(folder / CONDA, conda_file(environment.lock))
        return {"image": environment.image, "conda_file": CONDA}
    if environment.image and environment.conda_file:
        return {"image": environment.image, "conda_file": str(existing("conda_file", environment.conda_file))}
    if environment.image:
        return {"image": environment.image}
    if environment.build == DOCKER:
        write(folder / CONTEXT / DOCKERFILE, dockerfile(environment.lock))
        write(folder / CONTEXT / "requirements.txt", "\n".join(requirements(environment.lock)) + "\n")
        return {"build": {"path": CONTEXT, "dockerfile_path": DOCKERFILE}}
    existing("dockerfile_path", str(Path(environment.build) / environment.dockerfile_path))
    return {"build": {"path": str(existing("build", environment.build)), "dockerfile_path": environment.dockerfile_path}}


def dockerfile(lock: str) -> str:
    """docker/azure.Dockerfile with values for its arguments."""
    pinned = versions()
    base = "@".join(filter(None, (pinned["BASE_IMAGE"], pinned["BASE_DIGEST"])))
    text = Path("docker/azure.Dockerfile").read_text(encoding="utf-8")
    for name, value in {"BASE_IMAGE": base, "LOCK": lock, "UV": pinned["UV"]}.items():
        text = re.sub(rf"^ARG {name}\b.*$", f"ARG {name}={value}", text, flags=re.MULTILINE)
    return text


def conda_file(lock: str) -> str:
    """The same packages as a conda file."""
    dependencies = [f"python={versions()['PYTHON']}", *SYSTEM, {"pip": requirements(lock)}]
    return yaml.safe_dump({"channels": [CHANNEL], "dependencies": dependencies}, sort_keys=False)


def versions() -> dict[str, str]:
    """The pins of docker/versions.env."""
    lines = VERSIONS.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]", line))


def requirements(lock: str) -> list[str]:
    """The pins of a lock and of requirements/azure.txt, which takes precedence.

    It must: its packages need an older python-dateutil than the locks for CUDA, which were made without them.
    """
    azure = pins("azure")
    names = {name for name, _ in azure}
    return [pin for _, pin in azure] + [pin for name, pin in pins(lock) if name not in names]


def pins(lock: str) -> list[tuple[str, str]]:
    """The lines of a lock with their package names; a package may have one line for each version of Python."""
    lines = Path(f"requirements/{lock}.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith(("#", "-"))]
    return [(canonicalize_name(Requirement(line).name), line) for line in pinned]


def existing(key: str, path: str) -> Path:
    """Returns the absolute path of a file or folder of the user.

    Raises:
        InputError: it does not exist.
    """
    if not Path(path).exists():
        raise InputError(f"azure.environment.{key}: {path} not found")
    return Path(path).resolve()


def write(path: Path, text: str) -> None:
    with atomic_output(path) as partial:
        partial.write_text(text, encoding="utf-8")
