"""DVC's configuration of this project: its cache and its default remote. It holds credentials, so nothing here prints values."""

from functools import cache
from pathlib import Path
from typing import Any

DVC = Path(".dvc")


@cache
def configuration(folder: Path) -> dict[str, Any]:
    """All of its levels, those of the user and the machine included; empty without a project or with a broken one."""
    from dvc.config import Config, ConfigError

    try:
        return dict(Config(str(folder))) if folder.is_dir() else {}
    except ConfigError:
        return {}


def configured() -> dict[str, Any]:
    """That of the working folder."""
    return configuration(DVC.absolute())


def cache_folder() -> Path:
    """Where DVC keeps all versions of the outputs."""
    chosen = configured().get("cache", {}).get("dir")
    return Path(chosen) if chosen else DVC.absolute() / "cache"


def default_remote() -> str | None:
    """The name of the remote that `dvc push` and `dvc pull` use."""
    name = configured().get("core", {}).get("remote")
    return str(name) if name else None


def remote(name: str) -> dict[str, Any]:
    """A remote's options, credentials among them."""
    return dict(configured().get("remote", {}).get(name, {}))


def scheme(name: str) -> str:
    """A remote's kind, of its URL: azure, s3, ssh; the rest of a URL may hold a password or a token."""
    kind, separator, _ = str(remote(name).get("url", "")).partition("://")
    return kind if separator else "a folder"
