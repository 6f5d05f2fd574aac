"""Remote files of rows: the versions that `identify` found, and the paths to which `collect` downloads them."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from tunepress.core.errors import InputError, one_line
from tunepress.core.files import read_json
from tunepress.remote.addresses import is_remote

IDENTIFIED = Path("data/identified")  # in git: which version of each file a run used
COLLECTED = Path("data/collected")
LISTS = ("files", "validation_files", "test_files", "calibration_files")  # the keys of data with files


@dataclass(frozen=True)
class Identity:
    """One version of a remote file."""

    url: str
    size: int | None  # bytes
    etag: str  # or Last-Modified, if an https server does not send an ETag
    md5: str | None = None  # if the store reports it


def read_identities(which: str) -> list[Identity]:
    """Reads the versions that `identify` found for a list.

    Raises:
        InputError: the file does not exist or is not valid, for example after a merge conflict in git.
    """
    path = IDENTIFIED / f"{which}.json"
    try:
        return [Identity(**entry) for entry in read_json(path)]
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: not a file of identify ({one_line(error)}); delete it and run `dvc repro`") from error


def remote_lists(*lists: list[str]) -> list[str]:
    """The names of the LISTS that contain an address, from the content of each."""
    return [name for name, files in zip(LISTS, lists, strict=True) if any(map(is_remote, files))]


def remote_urls(files: list[str]) -> list[str]:
    """The addresses in a list of files, in order and without duplicates."""
    return list(dict.fromkeys(filter(is_remote, files)))


def local_path(url: str, which: str, files: list[str]) -> Path:
    """The path to which the file of an address is downloaded. Its index in the list distinguishes files of the same name."""
    name = re.sub(r"[^\w.-]", "_", unquote(PurePosixPath(urlsplit(url).path).name))
    return COLLECTED / which / f"{remote_urls(files).index(url) + 1}-{name}"


def local_paths(files: list[str], which: str) -> list[str]:
    """The local paths of a list of files."""
    return [str(local_path(file, which, files)) if is_remote(file) else file for file in files]
