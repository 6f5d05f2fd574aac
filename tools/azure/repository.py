"""The project's git repository, here and on a node."""

import subprocess
from pathlib import Path

from tunepress.core.errors import InputError


def git(folder: Path, *arguments: str) -> str:
    """What git says.

    Args:
        folder: of the repository.
        arguments: command and options.

    Raises:
        InputError: it fails.
    """
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"git {arguments[0]}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    return done.stdout.rstrip("\n")
