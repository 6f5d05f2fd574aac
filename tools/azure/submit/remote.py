"""The DVC remote that a job pushes its results to: what a node must know of it, which is all but its credentials."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from dvc.config import Config, ConfigError

from tools.azure import tracked_secrets
from tunepress.core.errors import InputError, one_line
from tunepress.remote.addresses import SECRET

PASSED = ("url", "account_name", "endpointurl", "region")  # options of DVC's remotes that are no secrets
WEB = {"http", "https", "webdav", "webdavs"}  # some of its services take a token as the user's name
SCHEME = re.compile(r"[a-z0-9]+://")
FIX = "give it one that a node reaches, such as azure://container/path (`dvc remote add --default NAME URL`)"


@dataclass(frozen=True)
class Remote:
    """A DVC remote by its name and those of its options that are no secrets; `url` is one of them."""

    name: str
    options: dict[str, str]


def find(root: Path) -> Remote:
    """The project's default remote, as `dvc push` here would find it.

    Raises:
        InputError: there is none, a node could not reach it, or git knows a secret of it.
    """
    try:
        config = Config(str(root / ".dvc"))
    except ConfigError as error:
        raise InputError(f"DVC's configuration: {one_line(error)}") from error
    tracked_secrets.refuse(config)
    name = config["core"].get("remote")
    if not name:
        raise InputError(f"no default DVC remote, to which the job would push its model; {FIX}")
    given = config["remote"].get(name)
    if not given:
        raise InputError(f"DVC remote {name}: core.remote names it, and there is none; {FIX}")
    options = {key: str(given[key]) for key in PASSED if given.get(key)}
    check_url(name, options["url"])
    if options["url"].startswith("azure://"):
        options["account_name"] = options.get("account_name") or account(name, str(given.get("connection_string", "")))
    return Remote(name, options)


def check_url(name: str, url: str) -> None:
    """Refuses what a node cannot reach, and an address with a password in it."""
    if not SCHEME.match(url):
        raise InputError(f"DVC remote {name}: its folder lies on this machine; {FIX}")
    parts = urlsplit(url)
    user = parts.username if parts.scheme in WEB else None
    if user or parts.password or any(SECRET.search(name) for name, _ in parse_qsl(parts.query)):
        raise InputError(f"DVC remote {name}: its url holds a credential; give it without, and the credential by --local")


def account(name: str, connection_string: str) -> str:
    """The storage account of a remote that does not name it, from where DVC would take it.

    Raises:
        InputError: nothing names it.
    """
    connection_string = connection_string or os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    named = re.search(r"(?:^|;)AccountName=([^;]+)", connection_string)
    found = os.environ.get("AZURE_STORAGE_ACCOUNT") or (named and named[1])
    if not found:
        raise InputError(f"DVC remote {name}: no storage account; `dvc remote modify {name} account_name ACCOUNT`")
    return found
