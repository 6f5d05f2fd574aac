"""The commit of what lies on the Hugging Face Hub, for a branch can move."""

import re
from collections.abc import Callable
from typing import Any

from tunepress.core.errors import InputError, one_line

SECONDS = 15  # that the Hub has to answer


def pinned(repo_id: str, revision: str | None, field: str, dataset: bool = False) -> tuple[str, str]:
    """Commit and license of a model or a dataset.

    Args:
        repo_id: its name on the Hub.
        revision: a commit, which is taken as it is, or a branch or tag, or None for the main one.
        field: that names it, for the error.
        dataset: whether it is one.

    Raises:
        InputError: the Hub does not tell.
    """
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision, "other"
    from huggingface_hub import HfApi  # a second

    ask: Callable[..., Any] = HfApi().dataset_info if dataset else HfApi().model_info
    try:
        info = ask(repo_id, revision=revision, timeout=SECONDS)
    except Exception as error:  # the hub's client raises errors of httpx, huggingface_hub and the operating system
        cure = f'give the commit as "revision"{"" if dataset else " in load_kwargs"}'
        raise InputError(f"{field}: the Hub does not tell the commit of {repo_id} ({one_line(error)}); {cure}") from error
    return str(info.sha), getattr(info.card_data, "license", None) or "other"
