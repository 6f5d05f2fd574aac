"""Datastores of an Azure ML workspace: the storage account and the container of an azureml:// address."""

import re
from typing import TYPE_CHECKING

from tunepress.core.errors import InputError
from tunepress.remote.errors import UnansweredError, is_unanswered
from tunepress.remote.storage_account import CLOUD, Account

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Datastore

WORKSPACE = r"subscriptions/([^/]+)/resourcegroups/([^/]+)/(?:providers/[^/]+/)?workspaces/([^/]+)/"
ADDRESS = re.compile(rf"azureml://(?:{WORKSPACE})?datastores/([^/]+)/paths/(.+)", re.IGNORECASE)


def resolve(url: str) -> tuple[Account, str]:
    """The storage account of a datastore, and the path of a file in it, which begins with the container.

    Args:
        url: azureml://subscriptions/S/resourcegroups/G/workspaces/W/datastores/D/paths/P, as Azure ML's studio shows it, or
            azureml://datastores/D/paths/P, with the workspace of the environment or of config.json.

    Raises:
        InputError: the address is not valid, the workspace or datastore does not exist, permission is missing, or the datastore
            does not contain blobs.
        UnansweredError: Azure did not answer.
    """
    parts = ADDRESS.fullmatch(url)
    if not parts:
        known = "azureml://subscriptions/.../resourcegroups/.../workspaces/.../datastores/.../paths/..."
        raise InputError(f"{url}: not an address of a file in a datastore; write {known}")
    *workspace, name, path = parts.groups()
    try:
        from tunepress.remote.workspace import connect, find_workspace  # raises if Azure's packages are not installed

        with connect(find_workspace(*workspace)) as client:
            store = get_datastore(name, client)
    except InputError as error:
        if is_unanswered(error):
            raise UnansweredError(str(error)) from error
        raise InputError(f"{url}: {error}") from error
    account, container = account_of(store, url)
    return account, f"{container}/{path}"


def get_datastore(name: str, client: "MLClient") -> "Datastore":
    """A datastore of a workspace, with its key or token if the account may see it."""
    from azure.core.exceptions import HttpResponseError

    try:
        return client.datastores.get(name, include_secrets=True)
    except HttpResponseError as error:
        if error.status_code != 403:
            raise
        return client.datastores.get(name)  # an account may be allowed to read the blobs but not the key


def account_of(store: "Datastore", url: str) -> tuple[Account, str]:
    """The storage account and the container of a datastore.

    Raises:
        InputError: the datastore does not contain blobs.
    """
    from azure.ai.ml.entities import AzureBlobDatastore, AzureDataLakeGen2Datastore

    if isinstance(store, AzureBlobDatastore):
        container = store.container_name
    elif isinstance(store, AzureDataLakeGen2Datastore):
        container = store.filesystem
    else:
        raise InputError(
            f"{url}: datastore {store.name} is an {type(store).__name__}; rows come from Azure Blob or Data Lake Gen2"
        )
    key, token = (getattr(store.credentials, name, None) for name in ("account_key", "sas_token"))
    return Account(store.account_name, store.endpoint or CLOUD, store.protocol or "https", key, token), container
