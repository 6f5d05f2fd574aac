"""An Azure ML workspace or registry: the client of Azure's own SDK for it, and its errors in one line.

The SDK is an extra (requirements/azure.txt), so nothing imports this module unless a configuration names such a place.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from typing import Any

from tunepress.core.errors import InputError, one_line

try:
    from azure.ai.ml import MLClient
    from azure.core.exceptions import (
        AzureError,
        ClientAuthenticationError,
        HttpResponseError,
        IncompleteReadError,
        ResourceNotFoundError,
        ServiceRequestError,
        ServiceResponseError,
    )
    from azure.identity import DefaultAzureCredential
except ModuleNotFoundError as error:
    raise InputError(f"no package {error.name}, which Azure needs; run `make setup-azure`") from error

for name in ("azure", "azure.ai.ml"):  # what their warnings say, the exceptions say too; the SDK sets its own level anew
    logging.getLogger(name).setLevel(logging.ERROR)

# Of the SDK's own limits, 300 s and three more tries, one call to a dead address takes 20 minutes.
LIMITS: dict[str, Any] = {"connection_timeout": 10, "read_timeout": 60, "retry_total": 3, "timeout": 120}  # seconds

VARIABLES = ("AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME")
LOGIN = "run `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
NO_ANSWER = (ServiceRequestError, ServiceResponseError, IncompleteReadError)


@dataclass(frozen=True)
class Workspace:
    """An Azure ML workspace, by the names that the portal shows."""

    subscription_id: str
    resource_group: str
    workspace_name: str

    def __str__(self) -> str:
        """Its name and where it is."""
        return f"workspace {self.workspace_name} of resource group {self.resource_group}, subscription {self.subscription_id}"


@dataclass(frozen=True)
class Registry:
    """An Azure ML registry, which is found by its name alone."""

    registry_name: str

    def __str__(self) -> str:
        """Its name."""
        return f"registry {self.registry_name}"


def find_workspace(subscription_id: str | None, resource_group: str | None, workspace_name: str | None) -> Workspace:
    """The workspace of these names or, where none is given, that of the environment or of config.json.

    The environment is what Azure ML sets in a job (AZUREML_ARM_...); config.json is what the portal offers as a download,
    looked for as `MLClient.from_config` does: here and in the folders above.

    Raises:
        InputError: some of the names are given and others not, or no place has them.
    """
    given = [subscription_id, resource_group, workspace_name]
    if not any(given):
        given = [os.environ.get(variable) for variable in VARIABLES]
    if not any(given):
        return configured_workspace()
    missing = [field.name for field, value in zip(fields(Workspace), given, strict=True) if not value]
    if missing:
        raise InputError(f"Azure ML workspace: {', '.join(missing)} must be set too")
    return Workspace(*(value or "" for value in given))


def configured_workspace() -> Workspace:
    """The workspace of config.json."""
    try:
        client = MLClient.from_config(DefaultAzureCredential(), enable_telemetry=False)
    except (AzureError, ValueError) as error:
        said = "no workspace is named, by its three names, by AZUREML_ARM_... or by a config.json"
        raise InputError(f"Azure ML workspace: {said} ({one_line(error)})") from error
    return Workspace(client.subscription_id, client.resource_group_name, client.workspace_name or "")


@contextmanager
def connect(place: Workspace | Registry, **options: Any) -> Iterator[MLClient]:
    """Yields the SDK's client for a place.

    Args:
        place: workspace or registry.
        options: further ones of MLClient, such as `transport`.

    Raises:
        InputError: what was asked of Azure inside the block failed: not logged in, no permission, nothing of that name,
            no connection.
    """
    with azure_errors(place):
        names: dict[str, Any] = {"registry_name": place.registry_name} if isinstance(place, Registry) else client_names(place)
        credential = options.pop("credential", None) or DefaultAzureCredential()
        yield MLClient(credential, **names, enable_telemetry=False, **LIMITS, **options)


def client_names(workspace: Workspace) -> dict[str, str]:
    """A workspace as MLClient names its parts."""
    return dict(zip(("subscription_id", "resource_group_name", "workspace_name"), astuple(workspace), strict=True))


@contextmanager
def azure_errors(asked: object) -> Iterator[None]:
    """Turns the errors of Azure's packages into one line about `asked`."""
    try:
        yield
    except AzureError as error:
        # the SDK wraps what failed in a download in an error of its own, which says no more
        raise InputError(
            f"{asked}: {error_message(error.__cause__ if isinstance(error.__cause__, AzureError) else error)}"
        ) from error


def error_message(error: AzureError) -> str:
    """What went wrong and what to do, on one line."""
    reason = reason_of(error)
    status = error.status_code if isinstance(error, HttpResponseError) else None
    if isinstance(error, ResourceNotFoundError) or status == 404:
        return f"not found; are the names right and has your account access? ({reason})"
    if status == 403:
        return f"your account has no permission; ask for a role on it ({reason})"
    if isinstance(error, ClientAuthenticationError) or status == 401:
        return f"not logged in to Azure; {LOGIN} ({reason})"
    if isinstance(error, NO_ANSWER) or (isinstance(error, HttpResponseError) and status is None):
        return f"no connection, or it broke off; is there a network, a proxy to set? ({reason})"
    return reason


def reason_of(error: AzureError) -> str:
    """The line of an error that tells most: where a login failed, what was said to it, else the first."""
    failed = re.search(r"AADSTS\d+:[^\r\n]*|(?<=Authentication failed: )[^\r\n]*", str(error.message))
    return failed.group() if failed else one_line(error)
