"""Azure ML workspaces and registries: the client of Azure's SDK, and its errors in one line.

The SDK is an extra (requirements/azure.txt), so this module is imported only if a configuration uses a workspace or registry.
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

for name in ("azure", "azure.ai.ml"):  # the exceptions repeat their warnings; the SDK resets its own level
    logging.getLogger(name).setLevel(logging.ERROR)

# With the SDK's own limits, 300 s and three retries, one call to a dead address takes 20 minutes.
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
        return f"workspace {self.workspace_name} of resource group {self.resource_group}, subscription {self.subscription_id}"


@dataclass(frozen=True)
class Registry:
    """An Azure ML registry, which is identified by its name alone."""

    registry_name: str

    def __str__(self) -> str:
        return f"registry {self.registry_name}"


def find_workspace(subscription_id: str | None, resource_group: str | None, workspace_name: str | None) -> Workspace:
    """The workspace with these names; without any, that of the environment or of config.json.

    Azure ML sets the environment variables AZUREML_ARM_... in a job. config.json is a download of the portal, which
    `MLClient.from_config` finds in the working folder and its parents.

    Raises:
        InputError: only some of the names are set, or there is no workspace in the environment or config.json.
    """
    names = [subscription_id, resource_group, workspace_name]
    if not any(names):
        names = [os.environ.get(variable) for variable in VARIABLES]
    if not any(names):
        return configured_workspace()
    missing = [field.name for field, name in zip(fields(Workspace), names, strict=True) if not name]
    if missing:
        raise InputError(f"Azure ML workspace: {', '.join(missing)} must be set too")
    return Workspace(*(name or "" for name in names))


def configured_workspace() -> Workspace:
    """The workspace of config.json."""
    try:
        client = MLClient.from_config(DefaultAzureCredential(), enable_telemetry=False)
    except (AzureError, ValueError) as error:
        problem = "no workspace is named; set its three names or AZUREML_ARM_..., or download its config.json"
        raise InputError(f"Azure ML workspace: {problem} ({one_line(error)})") from error
    return Workspace(client.subscription_id, client.resource_group_name, client.workspace_name or "")


@contextmanager
def connect(place: Workspace | Registry, **options: Any) -> Iterator[MLClient]:
    """Yields the SDK's client for a workspace or registry.

    Args:
        place: workspace or registry.
        options: other arguments of MLClient, such as `transport`.

    Raises:
        InputError: a request to Azure inside the block failed: not logged in, no permission, not found, no connection.
    """
    with azure_errors(place):
        names: dict[str, Any] = {"registry_name": place.registry_name} if isinstance(place, Registry) else client_names(place)
        credential = options.pop("credential", None) or DefaultAzureCredential()
        yield MLClient(credential, **names, enable_telemetry=False, **LIMITS, **options)


def client_names(workspace: Workspace) -> dict[str, str]:
    """The names of a workspace as arguments of MLClient."""
    return dict(zip(("subscription_id", "resource_group_name", "workspace_name"), astuple(workspace), strict=True))


@contextmanager
def azure_errors(subject: object) -> Iterator[None]:
    """Translates errors of Azure's packages inside the block into an InputError that begins with `subject`."""
    try:
        yield
    except AzureError as error:
        # the SDK wraps the cause of a failed download in an error without more information
        cause = error.__cause__ if isinstance(error.__cause__, AzureError) else error
        raise InputError(f"{subject}: {error_message(cause)}") from error


def error_message(error: AzureError) -> str:
    """The problem and what to do about it, in one line."""
    reason = reason_of(error)
    status = error.status_code if isinstance(error, HttpResponseError) else None
    if isinstance(error, ResourceNotFoundError) or status == 404:
        return f"not found; check the names and the access of your account ({reason})"
    if status == 403:
        return f"your account has no permission; ask for a role on it ({reason})"
    if isinstance(error, ClientAuthenticationError) or status == 401:
        return f"not logged in to Azure; {LOGIN} ({reason})"
    if isinstance(error, NO_ANSWER) or (isinstance(error, HttpResponseError) and status is None):
        return f"no connection, or it was interrupted; check the network and the proxy ({reason})"
    return reason


def reason_of(error: AzureError) -> str:
    """The most informative line of an error: the reason of a failed login, otherwise the first line."""
    login_failure = re.search(r"AADSTS\d+:[^\r\n]*|(?<=Authentication failed: )[^\r\n]*", str(error.message))
    return login_failure.group() if login_failure else one_line(error)
