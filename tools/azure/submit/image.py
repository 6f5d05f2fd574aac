"""What a node has installed: an image to build, one that is built, or one with a conda file on it."""

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
SYSTEM = ("git", "make", "pip")  # what the pipeline wants besides Python and its packages


def describe(given: Environment, folder: Path) -> dict[str, Any]:
    """The environment as the job's YAML has it; what is to be made for it is written.

    Args:
        given: of the settings.
        folder: that the YAML lies in.

    Raises:
        InputError: a file that is named is not there.
    """
    if given.image and given.conda_file == LOCK:
        write(folder / CONDA, conda_file(given.lock))
        return {"image": given.image, "conda_file": CONDA}
    if given.image and given.conda_file:
        return {"image": given.image, "conda_file": str(found("conda_file", given.conda_file))}
    if given.image:
        return {"image": given.image}
    if given.build == DOCKER:
        write(folder / CONTEXT / DOCKERFILE, dockerfile(given.lock))
        write(folder / CONTEXT / "requirements.txt", "\n".join(requirements(given.lock)) + "\n")
        return {"build": {"path": CONTEXT, "dockerfile_path": DOCKERFILE}}
    found("dockerfile_path", str(Path(given.build) / given.dockerfile_path))
    return {"build": {"path": str(found("build", given.build)), "dockerfile_path": given.dockerfile_path}}


def dockerfile(lock: str) -> str:
    """docker/azure.Dockerfile with the values of its arguments."""
    pinned = versions()
    base = "@".join(filter(None, (pinned["BASE_IMAGE"], pinned["BASE_DIGEST"])))
    text = Path("docker/azure.Dockerfile").read_text(encoding="utf-8")
    for name, value in {"BASE_IMAGE": base, "LOCK": lock, "UV": pinned["UV"]}.items():
        text = re.sub(rf"^ARG {name}\b.*$", f"ARG {name}={value}", text, flags=re.MULTILINE)
    return text


def conda_file(lock: str) -> str:
    """The same packages for conda."""
    dependencies = [f"python={versions()['PYTHON']}", *SYSTEM, {"pip": requirements(lock)}]
    return yaml.safe_dump({"channels": [CHANNEL], "dependencies": dependencies}, sort_keys=False)


def versions() -> dict[str, str]:
    """The pins of docker/versions.env."""
    lines = VERSIONS.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]", line))


def requirements(lock: str) -> list[str]:
    """The pins of a lock and of requirements/azure.txt, which has the say on what both have.

    It must: its packages want an older python-dateutil than the locks for CUDA, which know nothing of them.
    """
    azure = pins("azure")
    names = {name for name, _ in azure}
    return [pin for _, pin in azure] + [pin for name, pin in pins(lock) if name not in names]


def pins(lock: str) -> list[tuple[str, str]]:
    """The lines of a lock with the packages that they are of; a package has several where versions of Python differ."""
    lines = Path(f"requirements/{lock}.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith(("#", "-"))]
    return [(canonicalize_name(Requirement(line).name), line) for line in wanted]


def found(key: str, path: str) -> Path:
    """A file or folder of the user's, from wherever it is used.

    Raises:
        InputError: it is not there.
    """
    if not Path(path).exists():
        raise InputError(f"azure.environment.{key}: {path} not found")
    return Path(path).resolve()


def write(path: Path, text: str) -> None:
    """Writes a file of the job."""
    with atomic_output(path) as partial:
        partial.write_text(text, encoding="utf-8")
