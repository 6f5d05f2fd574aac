"""Runs all stages, and after a failure brings back what the last good run made: `make repro`.

DVC deletes a stage's outputs before it runs. Those of the last good run come back from its cache or, for the metrics, which are
in git and not in the cache, from a copy.

Only one run works in a folder. DVC 3.67 gives its lock free while a stage's command runs, and neither `dvc checkout` nor
`dvc exp run`, which begins with one, asks whether a stage is at work: what it brings back could take the place of what that stage
has just written, and would be recorded as its result.
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
LOCKS = ".dvc/tmp/rwlock and .dvc/tmp/exps/rwlock"  # DVC asks for the process number alone, which another may have by now


def main() -> None:
    """The command line."""
    try:
        sys.exit(repro())
    except LockError as error:
        sys.exit(f"repro: {holder(error)}; nothing was changed")
    except InputError as error:
        sys.exit(f"repro: {error}")
    except (DvcException, OSError) as error:
        sys.exit(f"repro: {error_message(error)}")
    except KeyboardInterrupt:
        sys.exit("repro: interrupted; `dvc checkout` and `git checkout metrics` bring back what is missing of the last good run")


def repro() -> int:
    """Composes params.yaml and runs what has changed; 0 where all went well.

    Raises:
        InputError: conf/ does not compose, or a stage runs here that was started by hand.
        LockError: another run works here.
    """
    repo = Repo()
    with get_exp_rwlock(repo, writes=["workspace"]):  # the lock that `dvc exp run` asks for
        with alone(repo):
            compose.update(reset=False)
            remove(KEPT)
            METRICS.mkdir(exist_ok=True)
            shutil.copytree(METRICS, KEPT)
        try:
            with whole(repo):  # `dvc repro` by itself asks for the outputs of one stage at a time
                failed = dvc(["repro"])
            if not failed:
                return 0
            bring_back(repo)
            return 1
        finally:
            remove(KEPT)


def bring_back(repo: Repo) -> None:
    """Brings back what the last good run made."""
    try:
        with alone(repo):
            logging.getLogger("dvc").setLevel(logging.CRITICAL)  # no progress bars
            repo.checkout(force=True, allow_missing=True)
            for kept in KEPT.rglob("*"):
                place = METRICS / kept.relative_to(KEPT)
                if kept.is_file() and not place.exists():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(kept, place)
    except (LockError, InputError) as error:
        said = holder(error) if isinstance(error, LockError) else str(error)
        print(
            f"repro: {said}; the outputs of the last good run are not brought back (`dvc checkout`, `git checkout metrics`)",
            file=sys.stderr,
        )


@contextmanager
def alone(repo: Repo) -> Iterator[None]:
    """Holds all locks of this folder: no stage runs, whoever started it, and none begins.

    Raises:
        InputError: a stage runs here.
        LockError: another process of DVC works here.
    """
    with file_lock(LOCK_FILE, raise_locked), lock_repo(repo), whole(repo):
        yield


def whole(repo: Repo) -> AbstractContextManager[None]:
    """DVC's lock of everything in this folder, which other processes of DVC are refused and this one's own stages are not.

    DVC takes an entry of this process and this command line for its own (dvc/rwlock.py, _check_blockers).
    """
    hardlink = bool(repo.config["core"].get("hardlink_lock", False))
    return cast(AbstractContextManager[None], rwlock(repo.tmp_dir, repo.fs, " ".join(sys.argv), [], [repo.root_dir], hardlink))


def holder(error: LockError) -> str:
    """Who has the lock."""
    process = re.search(r"\(PID (\d+)\): (.*)", str(error))
    if not process:
        return "another process of DVC works in this folder"
    return f"another run works in this folder (process {process[1]}, {process[2]}; if that is over, remove {LOCKS})"


if __name__ == "__main__":
    main()
