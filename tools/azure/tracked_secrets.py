"""Secrets in .dvc/config, which git publishes and every job's snapshot has."""

from collections.abc import Iterator, Mapping
from typing import Any

from dvc.config import Config

from tunepress.core.errors import InputError

# Those options of dvc/config_schema.py (3.67.1) whose value alone lets somebody in or decrypts.
OPTIONS = {
    "account_key",
    "client_secret",
    "connection_string",
    "gdrive_client_secret",
    "oss_key_secret",
    "passphrase",
    "password",
    "sas_token",
    "secret_access_key",
    "session_token",
    "sse_customer_key",
    "token",
}


def refuse(config: Config) -> None:
    """Looks for a secret where git would publish it.

    Raises:
        InputError: .dvc/config has one.
    """
    if name := next(found(config.load_one("repo")), None):
        raise InputError(
            f".dvc/config is in git and holds {name}: take it out with `dvc config --unset {name}`, "
            "and make a new one if it was ever committed"
        )


def found(section: Mapping[str, Any]) -> Iterator[str]:
    """The secrets of a section and of those in it, by the names that `dvc config` takes."""
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in found(value))
        elif name in OPTIONS:
            yield name
