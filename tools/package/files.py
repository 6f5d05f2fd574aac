"""The files of a model and what belongs to it."""

import os
import shutil
from pathlib import Path

from tunepress.core.paths import CONFORMANCE


def model_files(folder: Path) -> list[Path]:
    """The files in a model's folder, relative to it, without hidden ones and conformance.jsonl, which describes them."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [path for path in paths if path.name != CONFORMANCE.name and not any(part.startswith(".") for part in path.parts)]


def copy_model(folder: Path, target: Path) -> None:
    """Copies a model to a new folder. The weights are hard links where the file system has them."""
    for path in model_files(folder):
        copied = target / path
        copied.parent.mkdir(parents=True, exist_ok=True)
        source = (folder / path).resolve()  # os.link would link a symbolic link itself
        if ".onnx" in path.name:
            link_or_copy(source, copied)
        else:
            shutil.copyfile(source, copied)


def link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
