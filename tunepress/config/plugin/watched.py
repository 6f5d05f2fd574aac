"""Which paths DVC watches for the rows, so that a change of any file of rows runs `prepare` again.

The list of dependencies in dvc.yaml has a fixed length (DVC 3.67 allows only text in it, and no path twice), so it has a slot for
each of six paths, and a slot that is not used watches a module that `prepare` depends on anyway.
"""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from tunepress.config.data import as_list
from tunepress.core import paths
from tunepress.core.errors import InputError
from tunepress.core.row_files import find_files, is_pattern
from tunepress.remote.addresses import is_remote
from tunepress.remote.collected import COLLECTED, IDENTIFIED

UNUSED = tuple(f"stages/prepare/{name}.py" for name in ("stage", "rows", "split", "files", "readers", "tables"))
OUTPUTS = (COLLECTED, IDENTIFIED, Path("models"), paths.METRICS, paths.PREDICTIONS, paths.PREPARED, paths.REPORT)


def watched(*files: Any) -> list[str]:
    """The paths for the dependencies of `prepare` on rows, always as many.

    Args:
        files: the value of each list of files or of datasets, or a folder.

    Raises:
        InputError: a path has an output of the pipeline, or there are too many paths.
    """
    entries = [entry.get("path") if isinstance(entry, Mapping) else entry for value in files for entry in as_list(value)]
    local = [file for file in entries if isinstance(file, str) and file and not is_remote(file)]
    unique = dict.fromkeys(path for file in local for path in paths_of(file))
    outer = [path for path in unique if not any(PurePath(path) != PurePath(other) and is_in(path, other) for other in unique)]
    outer = combined(outer)
    return outer + list(UNUSED[len(outer) :])


def paths_of(file: str) -> list[str]:
    """The path to watch for a file, a folder or a pattern: for a pattern its folder, or the files if it has more than rows."""
    if not is_pattern(file):
        path = project_path(file)
        if problem := output_problem(path):
            raise InputError(f"{file}: {problem}")
        return [path]
    parts = PurePath(file).parts
    literal = next(number for number in range(len(parts)) if is_pattern(os.path.join(*parts[: number + 1])))  # noqa: PTH118
    folder = project_path(os.path.join(*parts[:literal])) if literal else "."  # noqa: PTH118
    return [folder] if output_problem(folder) is None else [path for match in find_files(file) for path in paths_of(str(match))]


def project_path(file: str) -> str:
    """A path relative to the project if it is in it; a link stays a link."""
    absolute = os.path.abspath(file)  # noqa: PTH100
    inside = Path(absolute).is_relative_to(Path.cwd())
    return os.path.relpath(absolute) if inside else os.path.normpath(file)


def is_in(path: str, folder: str) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))  # noqa: PTH100


def output_problem(path: str) -> str | None:
    """Why DVC cannot watch a path: it is an output of the pipeline, or a folder that has one."""
    for output in map(str, OUTPUTS):
        if is_in(path, output):
            return f"is written by the pipeline, in {output}; copy it to another folder, such as data/own"
        if is_in(output, path):
            return f"the folder also has {output}, which the pipeline writes; put the rows in a folder such as data/own"
    return None


def combined(paths: list[str]) -> list[str]:
    """At most as many paths as there are slots; files of one folder are watched by their folder if there are more."""
    while len(paths) > len(UNUSED):
        folders = Counter(str(PurePath(path).parent) for path in paths)
        folder = next((folder for folder, count in folders.most_common() if count > 1 and not output_problem(folder)), None)
        if folder is None:
            raise InputError(
                f"data.files: {len(paths)} paths are more than the {len(UNUSED)} that DVC watches; "
                "put the files in a folder of their own, such as data/own, and name the folder"
            )
        paths = [folder, *(path for path in paths if not is_in(path, folder))]
    return paths
