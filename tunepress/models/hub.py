"""The Hugging Face Hub: a repository's files at one commit."""

from collections.abc import Sequence
from pathlib import Path

from tunepress.core.errors import InputError, one_line


def download_snapshot(
    repo_id: str, revision: str | None, allow_patterns: Sequence[str], ignore_patterns: Sequence[str] = ()
) -> Path:
    """Downloads files of a repository to the hub's cache, and returns the folder there.

    Raises:
        InputError: the hub does not answer, or has no such repository or commit.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repo_id, revision=revision, allow_patterns=list(allow_patterns), ignore_patterns=list(ignore_patterns)
        )
    except Exception as error:  # errors of httpx, huggingface_hub and the operating system
        raise InputError(f"{repo_id}: could not be downloaded from the model hub ({one_line(error)})") from error
    return Path(folder)
