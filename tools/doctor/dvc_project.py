"""DVC's configuration of this project: its cache and its default remote. It may contain credentials, so no value is printed."""

from functools import cache
from pathlib import Path
from typing import Any

DVC = Path(".dvc")


@cache
def configuration(folder: Path) -> dict[str, Any]:
    """All levels, including those of the user and the machine; empty without a project, or if the configuration is broken."""
    from dvc.config import Config, ConfigError

    try:
        return dict(Config(str(folder))) if folder.is_dir() else {}
    except ConfigError:
        return {}


def configured() -> dict[str, Any]:
    return configuration(DVC.absolute())


def cache_folder() -> Path:
    """The folder with all versions of the outputs."""
    configured_folder = configured().get("cache", {}).get("dir")
    return Path(configured_folder) if configured_folder else DVC.absolute() / "cache"


def default_remote() -> str | None:
    """The name of the remote that `dvc push` and `dvc pull` use."""
    name = configured().get("core", {}).get("remote")
    return str(name) if name else None


def remote(name: str) -> dict[str, Any]:
    """A remote's options, including credentials."""
    return dict(configured().get("remote", {}).get(name, {}))


def scheme(name: str) -> str:
    """The scheme of a remote's URL, such as azure, s3 or ssh; the rest of the URL may contain a password or a token."""
    kind, separator, _ = str(remote(name).get("url", "")).partition("://")
    return kind if separator else "a folder"
