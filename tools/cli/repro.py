"""Runs all stages, and after a failure restores the outputs of the last successful run: `make repro`.

DVC deletes the outputs of a stage before it runs. Those of the last successful run are restored from its cache or, for the
metrics that are in git and not in the cache, from a copy.

Only one run may use a folder. DVC 3.67 releases its lock while the command of a stage runs, and neither `dvc checkout` nor
`dvc exp run`, which starts with one, checks whether a stage is running: the restored files could replace what that stage has just
written, and would be recorded as its result.
"""

import logging
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import cast

from dvc.cli import main as dvc
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.repo.experiments.utils import get_exp_rwlock
from dvc.rwlock import rwlock

from tools.cli import params as compose
from tunepress.core.errors import InputError
from tunepress.core.files import remove
from tunepress.core.lock import LOCK_FILE, file_lock, raise_locked
from tunepress.core.paths import METRICS
from tunepress.core.stage import error_message

KEPT = Path(".metrics.partial")
LOCKS = ".dvc/tmp/rwlock and .dvc/tmp/exps/rwlock"  # DVC only checks the process id, which another process may have by now


def main() -> None:
    try:
        sys.exit(repro())
    except LockError as error:
        sys.exit(f"repro: {holder(error)}; nothing was changed")
    except InputError as error:
        sys.exit(f"repro: {error}")
    except (DvcException, OSError) as error:
        sys.exit(f"repro: {error_message(error)}")
    except KeyboardInterrupt:
        sys.exit("repro: interrupted; `dvc checkout` and `git checkout metrics` restore the files of the last good run")


def repro() -> int:
    """Composes params.yaml and runs the changed stages; returns the exit status.

    Raises:
        InputError: conf/ does not compose, or a stage that was started separately is running.
        LockError: another run uses the folder.
    """
    repo = Repo()
    with get_exp_rwlock(repo, writes=["workspace"]):  # the lock of `dvc exp run`
        with exclusive(repo):
            compose.update(reset=False)
            remove(KEPT)
            METRICS.mkdir(exist_ok=True)
            shutil.copytree(METRICS, KEPT)
        try:
            with lock_workspace(repo):  # `dvc repro` itself only locks the outputs of one stage at a time
                failed = dvc(["repro"])
            if not failed:
                return 0
            restore_outputs(repo)
            return 1
        finally:
            remove(KEPT)


def restore_outputs(repo: Repo) -> None:
    """Restores the outputs of the last successful run."""
    try:
        with exclusive(repo):
            logging.getLogger("dvc").setLevel(logging.CRITICAL)  # no progress bars
            repo.checkout(force=True, allow_missing=True)
            for copy in KEPT.rglob("*"):
                original = METRICS / copy.relative_to(KEPT)
                if copy.is_file() and not original.exists():
                    original.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(copy, original)
    except (LockError, InputError) as error:
        reason = holder(error) if isinstance(error, LockError) else str(error)
        print(
            f"repro: {reason}; the outputs of the last successful run are not restored (`dvc checkout`, `git checkout metrics`)",
            file=sys.stderr,
        )


@contextmanager
def exclusive(repo: Repo) -> Iterator[None]:
    """Holds all locks of this folder, so that no stage is running and none can start.

    Raises:
        InputError: a stage is running.
        LockError: another process of DVC uses the folder.
    """
    with file_lock(LOCK_FILE, raise_locked), lock_repo(repo), lock_workspace(repo):
        yield


def lock_workspace(repo: Repo) -> AbstractContextManager[None]:
    """DVC's lock of everything in this folder, which blocks other processes of DVC but not the stages of this one.

    DVC ignores entries with its own process id and command line (dvc/rwlock.py, _check_blockers).
    """
    hardlink = bool(repo.config["core"].get("hardlink_lock", False))
    return cast(AbstractContextManager[None], rwlock(repo.tmp_dir, repo.fs, " ".join(sys.argv), [], [repo.root_dir], hardlink))


def holder(error: LockError) -> str:
    process = re.search(r"\(PID (\d+)\): (.*)", str(error))
    if not process:
        return "another process of DVC is using this folder"
    return f"another run is using this folder (process {process[1]}, {process[2]}; if it has ended, remove {LOCKS})"


if __name__ == "__main__":
    main()
