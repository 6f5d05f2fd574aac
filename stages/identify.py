"""identify: finds the current version of each remote file of rows, without downloading it.

DVC runs it every time, because nothing on this machine shows whether a remote file has changed. Its output, such as
data/identified/files.json, is in git: if a remote file changes, so does the output, and only then `collect` runs. If a server
does not answer, the version in the output stays.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

from tunepress.config.data import Data
from tunepress.core.errors import InputError
from tunepress.core.files import write_json
from tunepress.core.stage import run
from tunepress.remote.collected import IDENTIFIED, LISTS, Identity, read_identities, remote_urls
from tunepress.remote.errors import UnansweredError
from tunepress.remote.file import identify_file


@dataclass
class Config:
    data: Data


def main(which: str, cfg: Config) -> str:
    """Writes data/identified/<which>.json."""
    lists = (cfg.data.files, cfg.data.validation_files, cfg.data.test_files, cfg.data.calibration_files)
    urls = remote_urls(lists[LISTS.index(which)])
    output = IDENTIFIED / f"{which}.json"
    known = read_identities(which) if output.exists() else []
    current = identify(urls, {identity.url: identity for identity in known})
    write_json(output, [asdict(identity) for identity in current])
    changed = sum(identity not in known for identity in current)
    return f"{len(current)} remote files, {changed} new or changed, in {output}"


def identify(urls: list[str], known: dict[str, Identity]) -> list[Identity]:
    """The current version of each file; all requests run at the same time.

    Raises:
        InputError: a file cannot be accessed.
    """
    with ThreadPoolExecutor(len(urls) or 1) as threads:
        return list(threads.map(lambda url: current_identity(url, known.get(url)), urls))


def current_identity(url: str, known: Identity | None) -> Identity:
    """The current version of a file, or the known one if the server does not answer.

    Raises:
        InputError: the file cannot be accessed, or the server does not answer and no version is known.
    """
    try:
        return identify_file(url)
    except UnansweredError as error:
        if known is None:
            raise InputError(f"{url}: {error}") from error
        print(f"identify: {url}: {error}; this run continues with the known version {known.etag}", file=sys.stderr)
        return known


if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in LISTS:
        sys.exit(f"identify: name a list: python -m stages.identify {{{','.join(LISTS)}}}")
    run(f"identify_{sys.argv[1]}", partial(main, sys.argv[1]), Config, sys.argv[2:])
