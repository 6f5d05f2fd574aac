"""identify: asks which version there is now of each file of rows that lies elsewhere, and reads none of them.

DVC runs it each time, for nothing on this machine tells whether a file elsewhere has changed. What it writes,
data/identified/files.json or test_files.json, is in git: a file that has changed changes it, and only then does `collect` run.
Where nobody answers, what it wrote before stays.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

from tunepress.config.data import Data
from tunepress.core.errors import InputError
from tunepress.core.files import write_json
from tunepress.core.stage import run
from tunepress.remote.addresses import url_problem
from tunepress.remote.collected import IDENTIFIED, LISTS, Identity, read_identities, remote_urls
from tunepress.remote.errors import UnansweredError
from tunepress.remote.file import identify_file


@dataclass
class Config:
    """What this stage reads of params.yaml."""

    data: Data


def main(which: str, cfg: Config) -> str:
    """Writes data/identified/<which>.json."""
    named = remote_urls({"files": cfg.data.files, "test_files": cfg.data.test_files}[which])
    written = IDENTIFIED / f"{which}.json"
    known = read_identities(which) if written.exists() else []
    found = identify(named, {entry.url: entry for entry in known})
    write_json(written, [asdict(entry) for entry in found])
    changed = sum(entry not in known for entry in found)
    return f"{len(found)} files elsewhere, {changed} new or changed, in {written}"


def identify(named: list[str], known: dict[str, Identity]) -> list[Identity]:
    """The present version of each file; all are asked for at once, so that all together take no longer than one.

    Raises:
        InputError: an address is not one, or its file cannot be had.
    """
    for url in named:
        if wrong := url_problem(url):
            raise InputError(wrong)
    with ThreadPoolExecutor(len(named) or 1) as threads:
        return list(threads.map(lambda url: present(url, known.get(url)), named))


def present(url: str, known: Identity | None) -> Identity:
    """The version of a file that is there now, or where nobody answers the one that was there before.

    Raises:
        InputError: the file cannot be had, or nobody answers and none was there before.
    """
    try:
        return identify_file(url)
    except UnansweredError as error:
        if known is None:
            raise InputError(f"{url}: {error}") from error
        print(f"identify: {url}: {error}; this run goes on with the version seen before, {known.etag}", file=sys.stderr)
        return known


if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in LISTS:
        sys.exit(f"identify: names no list; use python -m stages.identify {{{','.join(LISTS)}}}")
    run(f"identify_{sys.argv[1]}", partial(main, sys.argv[1]), Config, sys.argv[2:])
