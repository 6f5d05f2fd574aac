"""One process at a time."""

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
def file_lock(path: Path, taken: Callable[[], None]) -> Iterator[IO[str]]:
    """Holds a lock that ends with the last process that has the file open; `taken` is called before waiting for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            taken()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


@contextmanager
def stage_lock(name: str) -> Iterator[bool]:
    """Holds the lock of this folder's stages, which write the same outputs and so never run side by side.

    Of several processes for one training only the first takes it, and not those that start them on each of several machines.
    Yields whether this process has it.

    Raises:
        InputError: a stage runs in this folder.
    """
    starter = "starter" if "PET_NNODES" in os.environ else "0"
    if os.environ.get("RANK", starter) != "0":
        yield False
        return
    with file_lock(LOCK_FILE, raise_locked) as file:
        file.truncate(0)
        file.write(f"{name} (process {os.getpid()})")
        file.flush()
        yield True


def raise_locked() -> None:
    """Raises InputError with the stage that has the lock."""
    raise InputError(f"{LOCK_FILE.read_text(encoding='utf-8') or 'another stage'} runs in this folder; wait until it ends")
