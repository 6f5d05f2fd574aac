"""The DVC remote on a node, tried before hours of work depend on it."""

import secrets
import subprocess
import sys

from dvc.repo import Repo
from fsspec import AbstractFileSystem

from tunepress.core.errors import InputError, one_line

ROLE = "give the compute's identity the role `Storage Blob Data Contributor` on the storage account"


def add(name: str, options: list[str]) -> None:
    """Makes a remote the default one, in .dvc/config.local, and sees whether this node may write there.

    Args:
        name: as the project has it.
        options: `url=...` first, then further ones.

    Raises:
        InputError: it cannot be written.
    """
    (_, url), *others = (option.split("=", 1) for option in options)
    dvc("remote", "add", "--local", "--force", "--default", name, url)
    for option, value in others:
        dvc("remote", "modify", "--local", name, option, value)
    try:
        with Repo() as repo:
            odb = repo.cloud.get_remote_odb(name)
            odb.fs.makedirs(odb.path, exist_ok=True)
            write_and_remove(odb.fs.fs, odb.path)
    except Exception as error:  # fsspec's file systems have no error in common
        raise InputError(f"DVC remote {url}: cannot be written ({one_line(error)}); {ROLE}") from error


def write_and_remove(system: AbstractFileSystem, folder: str) -> None:
    """Writes an empty file and removes it; its name is this node's own, for others try the same remote at the same time."""
    path = f"{folder}/.tunepress-{secrets.token_hex(8)}"
    system.pipe_file(path, b"")
    system.rm(path)


def dvc(*arguments: str) -> None:
    """Runs DVC without a word."""
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"dvc {' '.join(arguments[:2])}: {done.stderr.strip().splitlines()[-1]}")
