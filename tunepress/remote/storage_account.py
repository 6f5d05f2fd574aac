"""Azure storage accounts and their credentials, for adlfs."""

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
CLOUDS = {CLOUD, "core.chinacloudapi.cn", "core.usgovcloudapi.net"}  # credentials are sent nowhere else
ENVIRONMENT = threading.Lock()  # files are requested in threads, of which one may hide variables that another one reads


@dataclass(frozen=True, repr=False)
class Account:
    """A storage account. Without a key or token, the credential is that of DefaultAzureCredential."""

    name: str
    domain: str = CLOUD  # different in the clouds of China and the US government
    protocol: str = "https"
    key: str | None = None
    sas_token: str | None = None

    @property
    def connection_string(self) -> str | None:
        """The connection string with the key or token; None if there is neither."""
        endpoint = f"BlobEndpoint={self.protocol}://{self.name}.blob.{self.domain}"
        if self.key:
            return f"{endpoint};AccountName={self.name};AccountKey={self.key}"
        return f"{endpoint};SharedAccessSignature={self.sas_token.lstrip('?')}" if self.sas_token else None


def filesystem(account: Account | str) -> "AzureBlobFileSystem":
    """The file system of an account's blobs.

    Args:
        account: an account or a connection string.
    """
    from adlfs import AzureBlobFileSystem

    logging.getLogger("azure").setLevel(logging.CRITICAL)  # logs a page of text for each credential that is missing
    fresh = {"skip_instance_cache": True, "use_listings_cache": False}
    with hidden_variables():
        if isinstance(account, str) or account.connection_string:
            return AzureBlobFileSystem(
                connection_string=account if isinstance(account, str) else account.connection_string, **fresh
            )
        return AzureBlobFileSystem(account.name, account_host=f"{account.name}.blob.{account.domain}", anon=False, **fresh)


def account_from_environment(url: str, name: str | None, domain: str = CLOUD) -> Account | str:
    """The account of an address with its credential from the environment; without a name, the account of the environment.

    Returns:
        The account, or the connection string of the environment.

    Raises:
        InputError: neither the address nor the environment names an account, or the domain does not belong to Azure.
    """
    if domain not in CLOUDS:
        raise InputError(f"{url}: {domain} is not one of Azure's clouds: {', '.join(sorted(CLOUDS))}")
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
    """The value of the first environment variable that is set; az, DVC and adlfs use different names."""
    with ENVIRONMENT:
        return next((value for name in names if (value := os.environ.get(PREFIX + name))), None)


@contextmanager
def hidden_variables() -> Iterator[None]:
    """Hides the environment variables that would take precedence over the arguments of adlfs."""
    with ENVIRONMENT:
        hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(PREFIX)}
        try:
            yield
        finally:
            os.environ.update(hidden)
