"""A storage account of Azure and the credential for it, as adlfs takes them."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunepress.core.errors import InputError

if TYPE_CHECKING:
    from adlfs import AzureBlobFileSystem

PREFIX = "AZURE_STORAGE_"
CLOUD = "core.windows.net"
CLOUDS = {CLOUD, "core.chinacloudapi.cn", "core.usgovcloudapi.net"}  # no credential goes anywhere else
ENVIRONMENT = threading.Lock()  # files are asked for in threads, and one hides variables that another one reads


@dataclass(frozen=True, repr=False)
class Account:
    """One storage account. Without key or token the credential is what DefaultAzureCredential finds."""

    name: str
    domain: str = CLOUD  # another one in the clouds of China or the US government
    protocol: str = "https"
    key: str | None = None
    sas_token: str | None = None

    @property
    def connection_string(self) -> str | None:
        """The account with its key or token; None where it has neither."""
        endpoint = f"BlobEndpoint={self.protocol}://{self.name}.blob.{self.domain}"
        if self.key:
            return f"{endpoint};AccountName={self.name};AccountKey={self.key}"
        return f"{endpoint};SharedAccessSignature={self.sas_token.lstrip('?')}" if self.sas_token else None


def filesystem(account: Account | str) -> "AzureBlobFileSystem":
    """The account's blobs.

    Args:
        account: or a connection string.
    """
    from adlfs import AzureBlobFileSystem

    logging.getLogger("azure").setLevel(logging.CRITICAL)  # a page of text for each credential that is not there
    fresh = {"skip_instance_cache": True, "use_listings_cache": False}
    with hidden_variables():
        if isinstance(account, str) or account.connection_string:
            return AzureBlobFileSystem(
                connection_string=account if isinstance(account, str) else account.connection_string, **fresh
            )
        return AzureBlobFileSystem(account.name, account_host=f"{account.name}.blob.{account.domain}", anon=False, **fresh)


def account_from_environment(url: str, name: str | None, domain: str = CLOUD) -> Account | str:
    """The account that an address names, or the environment where it names none, with the credential there for it.

    Returns:
        The account, or the connection string in the environment.

    Raises:
        InputError: neither names an account, or the address one outside of Azure.
    """
    if domain not in CLOUDS:
        raise InputError(f"{url}: {domain} is none of Azure's clouds: {', '.join(sorted(CLOUDS))}")
    string, key = variable("CONNECTION_STRING"), variable("KEY", "ACCOUNT_KEY")
    if string and (name is None or f"AccountName={name};" in f"{string};" or f"://{name}.blob." in string):
        return string
    known = variable("ACCOUNT", "ACCOUNT_NAME")
    if name is None and known is None:
        raise InputError(
            f"{url}: names no storage account; set {PREFIX}ACCOUNT, or write abfs://container@account.dfs.{CLOUD}/path"
        )
    if name in (None, known) or known is None:
        return Account(name or known or "", domain, key=key, sas_token=variable("SAS_TOKEN"))
    return Account(name or "", domain)


def variable(*names: str) -> str | None:
    """The first of some variables of the environment that has a value; az, DVC and adlfs have names of their own."""
    with ENVIRONMENT:
        return next((value for name in names if (value := os.environ.get(PREFIX + name))), None)


@contextmanager
def hidden_variables() -> Iterator[None]:
    """Hides the variables that adlfs would prefer to the account that it is given."""
    with ENVIRONMENT:
        hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(PREFIX)}
        try:
            yield
        finally:
            os.environ.update(hidden)
