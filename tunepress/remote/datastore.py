"""A datastore of an Azure ML workspace: the storage account and the container behind an azureml:// address."""

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
    """The account that a datastore stands for, and the path of a file in it, the container first.

    Args:
        url: azureml://subscriptions/S/resourcegroups/G/workspaces/W/datastores/D/paths/P, as Azure ML's studio shows it;
            from datastores/ on, the workspace is that of the environment or of config.json.

    Raises:
        InputError: no such address, workspace or datastore, no permission, or a datastore that holds no blobs.
        UnansweredError: Azure did not answer.
    """
    parts = ADDRESS.fullmatch(url)
    if not parts:
        known = "azureml://subscriptions/.../resourcegroups/.../workspaces/.../datastores/.../paths/..."
        raise InputError(f"{url}: is no address of a file in a datastore; one reads {known}")
    *workspace, name, path = parts.groups()
    try:
        from tunepress.remote.workspace import connect, find_workspace  # raises where Azure's packages are not installed

        with connect(find_workspace(*workspace)) as client:
            store = get_datastore(name, client)
    except InputError as error:
        if is_unanswered(error):
            raise UnansweredError(str(error)) from error
        raise InputError(f"{url}: {error}") from error
    account, container = account_of(store, url)
    return account, f"{container}/{path}"


def get_datastore(name: str, client: "MLClient") -> "Datastore":
    """What the workspace says about a datastore, with its key or token where it gives them out."""
    from azure.core.exceptions import HttpResponseError

    try:
        return client.datastores.get(name, include_secrets=True)
    except HttpResponseError as error:
        if error.status_code != 403:
            raise
        return client.datastores.get(name)  # who may read the blobs need not be allowed to see the key


def account_of(store: "Datastore", url: str) -> tuple[Account, str]:
    """A datastore's account and container.

    Raises:
        InputError: it holds no blobs.
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
