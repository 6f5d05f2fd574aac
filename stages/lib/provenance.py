"""Provenance: the exact inputs and commands that a run was made with."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

COMMANDS = (  # of dvc.yaml's stages, in the order in which `dvc repro` runs them
    "python -m stages.fetch",
    "python -m stages.prepare",
    "python -m stages.train",
    "python -m stages.merge",
    "python -m stages.build",
    "python -m stages.evaluate base",
    "python -m stages.evaluate merged",
    "python -m stages.evaluate onnx",
    "python -m stages.compare",
    "python -m stages.benchmark merged",
    "python -m stages.benchmark onnx",
    "python -m stages.judge",
    "python -m stages.report",
    "python -m stages.enforce",
)


def hashes(places: Iterable[Path]) -> dict[str, str]:
    """The sha256 of each file, and of each file in a folder, by its path."""
    files = [file for place in places for file in (sorted(place.rglob("*")) if place.is_dir() else [place]) if file.is_file()]
    return {file.as_posix(): sha256(file) for file in files}


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
