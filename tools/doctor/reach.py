"""Checks whether a service answers, in a process of its own, which `places` stops when it takes too long.

    python -m tools.doctor.reach hub microsoft/Phi-3-mini-4k-instruct REVISION model
    python -m tools.doctor.reach remote NAME

Prints one word: REACHED, or the class of the error. The text of an error may contain a credential and is not printed.
"""

import sys
from collections.abc import Callable

REACHED = "reached"
TIMEOUT = 10  # seconds for the hub


def hub(repo_id: str, revision: str, kind: str) -> None:
    """Requests the headers of a file, with the user's token if there is one."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    file = "config.json" if kind == "model" else "README.md"
    try:
        get_hf_file_metadata(hf_hub_url(repo_id, file, repo_type=kind, revision=revision), timeout=TIMEOUT)
    except EntryNotFoundError:  # the repository exists, which is enough
        return


def remote(name: str) -> None:
    """Checks whether the folder of a DVC remote exists; the first push creates it."""
    from dvc.repo import Repo

    store = Repo().cloud.get_remote_odb(name)
    store.fs.exists(store.path)


def main(place: str, *arguments: str) -> str:
    checks: dict[str, Callable[..., None]] = {"hub": hub, "remote": remote}
    try:
        checks[place](*arguments)
    except Exception as error:  # of httpx, huggingface_hub, dvc and each cloud's own package
        return type(error).__name__
    return REACHED


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
