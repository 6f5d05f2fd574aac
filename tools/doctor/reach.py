"""Asks a place whether it answers, in a process of its own, which `places` ends when it takes too long.

    python -m tools.doctor.reach hub microsoft/Phi-3-mini-4k-instruct REVISION model
    python -m tools.doctor.reach remote NAME

Prints one word: REACHED, or the name of the error's class. An error's text may hold a credential and is not printed.
"""

import sys
from collections.abc import Callable

REACHED = "reached"
SECONDS = 10  # for the hub to answer


def hub(repo_id: str, revision: str, kind: str) -> None:
    """Asks for a file's headers, with the user's token where there is one."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    file = "config.json" if kind == "model" else "README.md"
    try:
        get_hf_file_metadata(hf_hub_url(repo_id, file, repo_type=kind, revision=revision), timeout=SECONDS)
    except EntryNotFoundError:  # the repository is there, which is what was asked
        return


def remote(name: str) -> None:
    """Looks whether a DVC remote's folder is there; one that isn't is made by the first push."""
    from dvc.repo import Repo

    store = Repo().cloud.get_remote_odb(name)
    store.fs.exists(store.path)


def main(place: str, *arguments: str) -> str:
    """What is printed."""
    asks: dict[str, Callable[..., None]] = {"hub": hub, "remote": remote}
    try:
        asks[place](*arguments)
    except Exception as error:  # of httpx, huggingface_hub, dvc and each cloud's own package
        return type(error).__name__
    return REACHED


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
