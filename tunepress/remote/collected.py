"""Files of rows from elsewhere: which of them `identify` found, and where `collect` put them."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from tunepress.core.errors import InputError, one_line
from tunepress.core.files import read_json
from tunepress.remote.addresses import is_remote

IDENTIFIED = Path("data/identified")  # in git: which version of each file a run used
COLLECTED = Path("data/collected")
LISTS = ("files", "test_files")  # keys of data that name files


@dataclass(frozen=True)
class Identity:
    """One version of a file elsewhere."""

    url: str
    size: int | None  # bytes
    etag: str  # or, from a server of https that gives none, when it was last modified
    md5: str | None = None  # where the store tells it


def read_identities(which: str) -> list[Identity]:
    """What `identify` wrote of a list.

    Raises:
        InputError: it wrote nothing, or somebody else did, as git where two branches' versions do not go together.
    """
    path = IDENTIFIED / f"{which}.json"
    try:
        return [Identity(**entry) for entry in read_json(path)]
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: not what identify writes ({one_line(error)}); remove it, and `dvc repro`") from error


def remote_lists(*lists: list[str]) -> list[str]:
    """Those of LISTS that name a file elsewhere, given what each of them names."""
    return [name for name, files in zip(LISTS, lists, strict=True) if any(map(is_remote, files))]


def remote_urls(files: list[str]) -> list[str]:
    """Those files of a list that lie elsewhere, each once, in order."""
    return list(dict.fromkeys(filter(is_remote, files)))


def local_path(url: str, which: str, files: list[str]) -> Path:
    """Where the file of an address lies on this machine, by the list that names it; two may have one name."""
    name = re.sub(r"[^\w.-]", "_", unquote(PurePosixPath(urlsplit(url).path).name))
    return COLLECTED / which / f"{remote_urls(files).index(url) + 1}-{name}"


def local_paths(files: list[str], which: str) -> list[str]:
    """The paths on this machine of a list of files."""
    return [str(local_path(file, which, files)) if is_remote(file) else file for file in files]
