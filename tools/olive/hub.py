"""Base models of conf/, and commits of the Hugging Face Hub, because a branch can move."""

import re
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tunepress.core.errors import InputError, one_line
from tunepress.core.params import CONF

TIMEOUT = 15  # seconds


def pinned(repo_id: str, revision: str | None, field: str, dataset: bool = False) -> tuple[str, str]:
    """Returns the commit and the license of a model or a dataset.

    Args:
        repo_id: its name on the Hub.
        revision: a commit, which is returned as it is, a branch or a tag; None for the main branch.
        field: of the configuration that names it, for the error.
        dataset: whether it is a dataset.

    Raises:
        InputError: the Hub does not answer.
    """
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision, "other"
    from huggingface_hub import HfApi  # a second

    get_info: Callable[..., Any] = HfApi().dataset_info if dataset else HfApi().model_info
    try:
        info = get_info(repo_id, revision=revision, timeout=TIMEOUT)
    except Exception as error:  # the hub's client raises errors of httpx, huggingface_hub and the operating system
        cure = f'set the commit as "revision"{"" if dataset else " in load_kwargs"}'
        raise InputError(f"{field}: cannot look up the commit of {repo_id} on the Hub ({one_line(error)}); {cure}") from error
    return str(info.sha), getattr(info.card_data, "license", None) or "other"


def base_models() -> dict[str, DictConfig]:
    """The groups of conf/base_model by name."""
    files = sorted((CONF / "base_model").glob("*.yaml"))
    return {file.stem: DictConfig(OmegaConf.load(file)) for file in files}
