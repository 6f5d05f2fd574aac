"""Provenance of a run: its commands and the hashes of its files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tunepress.core.files import sha256

COMMANDS = (  # of dvc.yaml's stages that every run has, in the order in which `dvc repro` runs them
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


def commands(remote: Sequence[str]) -> list[str]:
    """The commands of a run.

    Args:
        remote: the lists of `data` that name files elsewhere, which are asked for and brought here first.
    """
    brought = [f"python -m stages.{stage} {name}" for stage in ("identify", "collect") for name in remote]
    return [*COMMANDS[:1], *brought, *COMMANDS[1:]]


def hash_files(places: Iterable[Path]) -> dict[str, str]:
    """SHA-256 by path of files and of all files in folders."""
    files = [file for place in places for file in (sorted(place.rglob("*")) if place.is_dir() else [place]) if file.is_file()]
    return {file.as_posix(): sha256(file) for file in files}
