"""collect: brings the files of rows that lie elsewhere to data/collected, in the versions that `identify` found."""

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
    """What this stage reads of params.yaml: nothing, data/identified says it all."""


def main(which: str, cfg: Config) -> str:
    """Fills data/collected/<which>, all of it or nothing."""
    wanted = read_identities(which)
    named = [entry.url for entry in wanted]
    with atomic_output(COLLECTED / which) as partial_folder:
        partial_folder.mkdir()
        for entry in wanted:
            try:
                download(entry, partial_folder / local_path(entry.url, which, named).name)
            except UnansweredError as error:
                raise InputError(f"{entry.url}: {error}") from error
    return f"{len(wanted)} files in {COLLECTED / which} ({size_mb(COLLECTED / which):.1f} MB)"


if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in LISTS:
        sys.exit(f"collect: names no list; use python -m stages.collect {{{','.join(LISTS)}}}")
    run(f"collect_{sys.argv[1]}", partial(main, sys.argv[1]), Config, sys.argv[2:])
