"""Locks that allow one process at a time."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tunepress.core.errors import InputError
from tunepress.core.paths import TIMINGS

LOCK_FILE = TIMINGS / "lock"


@contextmanager
def file_lock(path: Path, on_locked: Callable[[], None]) -> Iterator[IO[str]]:
    """Holds the lock of a file and yields the open file.

    The lock is released when the last process that has the file open ends.

    Args:
        path: created if it does not exist.
        on_locked: called before waiting if another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_locked()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


@contextmanager
def stage_lock(name: str) -> Iterator[bool]:
    """Holds the lock of the stages of this folder, which write the same outputs and therefore never run at the same time.

    Of the processes of a distributed training only the one with rank 0 takes the lock; the launchers on several machines
    do not take it either.

    Yields:
        Whether this process holds the lock.

    Raises:
        InputError: another stage is running in this folder.
    """
    default_rank = "launcher" if "PET_NNODES" in os.environ else "0"
    if os.environ.get("RANK", default_rank) != "0":
        yield False
        return
    with file_lock(LOCK_FILE, raise_locked) as file:
        file.truncate(0)
        file.write(f"{name} (process {os.getpid()})")
        file.flush()
        yield True


def raise_locked() -> None:
    """Raises InputError with the name of the stage that holds the lock."""
    holder = LOCK_FILE.read_text(encoding="utf-8") or "another stage"
    raise InputError(f"{holder} is running in this folder; wait until it ends")
