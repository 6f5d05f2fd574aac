"""tunepress/remote/workspace: Azure's own client against Azure on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from azure.core.credentials import AccessToken

from tests.azure.azurite import ACCOUNT, Azurite
from tests.azure.cloud import TOKEN, Answer, Cloud, Request, refuse
from tests.azure.machine_learning import (
    ARM,
    CONTAINER,
    GROUP,
    REGISTRY,
    STORE,
    SUBSCRIPTION,
    URI,
    WORKSPACE,
    MachineLearning,
    blob_store,
    model,
)
from tunepress.core.errors import InputError
from tunepress.remote.workspace import Registry, Workspace, connect, find_workspace

HERE = Workspace(SUBSCRIPTION, GROUP, WORKSPACE)


class Credential:
    """A token of ours."""

    def get_token(self, *scopes: str, **options: object) -> AccessToken:
        return AccessToken(TOKEN, 2**40)


def refusal(place: Workspace | Registry, name: str = STORE) -> str:
    """The one line that asking for a data store is refused with."""
    with pytest.raises(InputError) as refused, connect(place) as client:
        client.datastores.get(name)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# the client


def test_every_call_goes_through_the_transport_with_the_credential(cloud: Cloud, machine_learning: MachineLearning) -> None:
    machine_learning.secrets[STORE] = {"secretsType": "AccountKey", "key": "a2V5"}
    with connect(HERE, transport=cloud.transport, credential=Credential()) as client:
        assert client.workspaces.get(WORKSPACE).location == "region"
        assert client.datastores.get(STORE).container_name == "azureml"
        assert client.datastores.get(STORE, include_secrets=True).credentials.account_key == "a2V5"
    assert {request.headers["Authorization"] for request in cloud.requests} == {f"Bearer {TOKEN}"}
    assert {request.url.partition("?")[0].removeprefix(ARM) for request in cloud.requests} == {
        "",
        f"/datastores/{STORE}",
        f"/datastores/{STORE}/listSecrets",
    }


def test_a_registry_is_found_by_its_name(in_cloud: Cloud, machine_learning: MachineLearning) -> None:
    machine_learning.shared_models["phi", "11"] = model("https://account.blob.core.windows.net/container/phi")
    with connect(Registry(REGISTRY)) as client:
        assert client.models.get("phi", version="11").path == "https://account.blob.core.windows.net/container/phi"


def test_nothing_is_sent_to_the_makers_of_the_client(in_cloud: Cloud, machine_learning: MachineLearning) -> None:
    with connect(HERE) as client:
        client.datastores.get(STORE)
    hosts = {request.url.split("/")[2] for request in in_cloud.requests}
    assert hosts == {"login.microsoftonline.com", "management.azure.com"}


def test_az_login_is_enough(
    in_cloud: Cloud, machine_learning: MachineLearning, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    token = json.dumps({"accessToken": TOKEN, "expires_on": 2**40, "tokenType": "Bearer"})
    (tmp_path / "az").write_text(f"#!/bin/sh\necho '{token}'\n")
    (tmp_path / "az").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with connect(HERE) as client:
        assert client.datastores.get(STORE).name == STORE
    assert in_cloud.requests[-1].headers["Authorization"] == f"Bearer {TOKEN}"


def test_another_process_is_sent_to_the_cloud_by_its_environment(
    cloud: Cloud, machine_learning: MachineLearning, root: Path
) -> None:
    body = f"with connect({HERE!r}) as client: print(client.datastores.get('{STORE}').name)"
    code = f"from tunepress.remote.workspace import *\n{body}"
    done = subprocess.run(
        [sys.executable, "-c", code], env=cloud.environment, cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == f"{STORE}\n", done.stderr


# its blobs


@pytest.mark.parametrize("credentials", ["AccountKey", "None"])
def test_a_model_of_the_workspace_is_read_with_the_store_s_key_or_as_the_user(
    credentials: str, storage: Azurite, machine_learning: MachineLearning, tmp_path: Path
) -> None:
    storage.upload(CONTAINER, "models/phi/config.json", b"{}")
    machine_learning.datastores[STORE] = blob_store(credentials=credentials)
    machine_learning.models["phi", "1"] = model(f"{URI}/datastores/{STORE}/paths/models/phi")
    with connect(HERE) as client:
        client.models.download("phi", version="1", download_path=tmp_path)
    assert (tmp_path / "phi/phi/config.json").read_bytes() == b"{}"


def test_a_model_of_the_registry_is_read_with_the_signature_it_gives(
    storage: Azurite, machine_learning: MachineLearning, tmp_path: Path
) -> None:
    storage.upload(CONTAINER, "shared/phi/config.json", b"{}")
    machine_learning.shared_models["phi", "11"] = model(f"https://{ACCOUNT}.blob.core.windows.net/{CONTAINER}/shared/phi")
    with connect(Registry(REGISTRY)) as client:
        client.models.download("phi", version="11", download_path=tmp_path)
    assert (tmp_path / "phi/phi/config.json").read_bytes() == b"{}"


# what goes wrong, in one line


def test_something_that_is_not_there_is_named(in_cloud: Cloud, machine_learning: MachineLearning) -> None:
    message = refusal(HERE, "otherstore")
    assert message.startswith(f"workspace {WORKSPACE} of resource group {GROUP}, subscription {SUBSCRIPTION}: not found;")
    assert "Could not find datastore: otherstore" in message
    assert "'otherspace'" not in message


def test_a_workspace_or_registry_that_is_not_there_is_named(in_cloud: Cloud, machine_learning: MachineLearning) -> None:
    assert refusal(Workspace(SUBSCRIPTION, GROUP, "otherspace")).startswith("workspace otherspace of resource group group,")
    assert refusal(Registry("other")).startswith("registry other: not found; check the names")


def test_no_permission_is_told(in_cloud: Cloud, machine_learning: MachineLearning) -> None:
    def forbid(request: Request, name: str) -> Answer:
        return refuse(403, "AuthorizationFailed", "The client 'you' does not have authorization to perform action 'read'")

    in_cloud.route("GET", f"{ARM}/datastores/(?P<name>.*)", forbid)
    message = refusal(HERE)
    assert "your account has no permission; ask for a role on it" in message
    assert "'read'" in message


def test_a_wrong_secret_is_told_and_not_shown(in_cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong-secret")
    message = refusal(HERE)
    assert "not logged in to Azure; run `az login`, or set AZURE_TENANT_ID" in message
    assert "AADSTS7000215: Invalid client secret provided." in message
    assert "wrong-secret" not in message


def test_no_login_at_all_is_told(in_cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", "")
    assert "not logged in to Azure; run `az login`" in refusal(HERE)


@pytest.mark.slow
def test_no_network_is_told_within_seconds(in_cloud: Cloud) -> None:
    in_cloud.reachable = False
    with pytest.raises(InputError, match="no connection, or it was"), connect(HERE, credential=Credential()) as client:
        client.datastores.get(STORE)
    assert "Unable to connect" in refusal(HERE)  # of the login, which comes first


# which workspace


def test_a_workspace_is_that_of_its_names_before_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZUREML_ARM_SUBSCRIPTION", "s")
    monkeypatch.setenv("AZUREML_ARM_RESOURCEGROUP", "g")
    monkeypatch.setenv("AZUREML_ARM_WORKSPACE_NAME", "w")
    assert find_workspace(SUBSCRIPTION, GROUP, WORKSPACE) == HERE
    assert find_workspace(None, None, None) == Workspace("s", "g", "w")


def test_a_workspace_is_read_from_config_json_in_a_folder_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    names = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "workspace_name": WORKSPACE}
    (tmp_path / "config.json").write_text(json.dumps(names))
    assert find_workspace(None, None, None) == HERE


def test_a_workspace_named_in_part_or_nowhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="resource_group, workspace_name must be set too"):
        find_workspace(SUBSCRIPTION, None, None)
    with pytest.raises(InputError, match="no workspace is named"):
        find_workspace(None, None, None)
