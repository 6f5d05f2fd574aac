"""Prepares a node for the pipeline: inputs, variables for training on several nodes, and the DVC remote."""

import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from dvc.repo import Repo
from fsspec import AbstractFileSystem

from tunepress.core.errors import InputError, one_line

# Azure ML starts one process per node and describes it like one of torch's, with a rank; torchrun is only started by it.
PROCESS_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "NODE_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
RENDEZVOUS_TIMEOUT = 3600  # seconds that a node waits until the slowest one has fetched and prepared
ROLE = "give the compute's identity the role `Storage Blob Data Contributor` on the storage account"


def link_input(mounted: str, place: str) -> None:
    """Links an input that Azure ML has mounted or downloaded into the project.

    Raises:
        InputError: nothing is mounted, or the project already has a file at `place`.
    """
    source, target = Path(mounted), Path(place)
    if not source.exists():
        raise InputError(f"input {place}: Azure ML passed {mounted}, which does not exist")
    if target.exists():
        raise InputError(f"input {place}: the project has a file of that name; choose another place")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())


def is_first_node(environment: Mapping[str, str]) -> bool:
    """Whether this node runs the whole pipeline."""
    return environment.get("RANK", "0") == "0"


def torchrun_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with torchrun's variables for several nodes instead of those of a torch process."""
    variables = {name: value for name, value in environment.items() if name not in PROCESS_VARIABLES}
    nodes = environment.get("WORLD_SIZE", "1")
    if nodes == "1":
        return variables
    return variables | {
        "PET_NNODES": nodes,
        "PET_NODE_RANK": environment["RANK"],
        "PET_MASTER_ADDR": environment["MASTER_ADDR"],
        "PET_MASTER_PORT": environment["MASTER_PORT"],
        "PET_RDZV_CONF": f"timeout={RENDEZVOUS_TIMEOUT}",
    }


def add_remote(name: str, options: list[str]) -> None:
    """Adds the default DVC remote to .dvc/config.local and checks that this node can write to it, before hours of work.

    Args:
        name: of the remote in the project.
        options: `url=...` first, then others.

    Raises:
        InputError: the remote is not writable.
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
    except Exception as error:  # fsspec's file systems share no base class of errors
        raise InputError(f"DVC remote {url}: cannot be written ({one_line(error)}); {ROLE}") from error


def write_and_remove(system: AbstractFileSystem, folder: str) -> None:
    """Writes and removes an empty file, whose name is unique because other nodes check the same remote at the same time."""
    path = f"{folder}/.tunepress-{secrets.token_hex(8)}"
    system.pipe_file(path, b"")
    system.rm(path)


def dvc(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"dvc {' '.join(arguments[:2])}: {done.stderr.strip().splitlines()[-1]}")
