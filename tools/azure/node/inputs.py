"""Inputs of a job, where the configuration expects them in the project."""

from pathlib import Path

from tunepress.core.errors import InputError


def place(mounted: str, where: str) -> None:
    """Makes what Azure ML has mounted or downloaded appear at a path of the project.

    Raises:
        InputError: nothing is mounted, or something lies there already.
    """
    source, target = Path(mounted), Path(where)
    if not source.exists():
        raise InputError(f"input {where}: Azure ML gave {mounted}, and nothing is there")
    if target.exists():
        raise InputError(f"input {where}: the project has a file of that name; choose another place")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())
