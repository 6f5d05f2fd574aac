"""collect: downloads the remote files of rows to data/collected, in the versions that `identify` found."""

import sys
from dataclasses import dataclass
from functools import partial

from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output, size_mb
from tunepress.core.stage import run
from tunepress.remote.collected import COLLECTED, LISTS, local_path, read_identities
from tunepress.remote.errors import UnansweredError
from tunepress.remote.file import download


@dataclass
class Config:
    """Empty: the stage reads only data/identified."""


def main(which: str, cfg: Config) -> str:
    """Writes all files to data/collected/<which>, or nothing."""
    identities = read_identities(which)
    urls = [identity.url for identity in identities]
    with atomic_output(COLLECTED / which) as partial_folder:
        partial_folder.mkdir()
        for identity in identities:
            try:
                download(identity, partial_folder / local_path(identity.url, which, urls).name)
            except UnansweredError as error:
                raise InputError(f"{identity.url}: {error}") from error
    return f"{len(identities)} files in {COLLECTED / which} ({size_mb(COLLECTED / which):.1f} MB)"


if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in LISTS:
        sys.exit(f"collect: name a list: python -m stages.collect {{{','.join(LISTS)}}}")
    run(f"collect_{sys.argv[1]}", partial(main, sys.argv[1]), Config, sys.argv[2:])
