"""datastore: Azure's own client resolves it, and the blobs in it are read as it says."""

import ssl
from pathlib import Path

import aiohttp.connector
import pytest

from tests.azure.azurite import ACCOUNT, Azurite
from tests.azure.cloud import Answer, Cloud, Request, refuse
from tests.azure.machine_learning import ARM, CONTAINER, STORE, URI, MachineLearning, blob_store
from tunepress.core.errors import InputError
from tunepress.remote.datastore import resolve
from tunepress.remote.errors import UnansweredError
from tunepress.remote.file import download, identify_file

ROWS = b'{"phrase": "a day at the sea", "tone": "joy"}\n'
FILE = f"{URI}/datastores/{STORE}/paths/a/tone.jsonl"


@pytest.fixture(autouse=True)
def surroundings(in_cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    # aiohttp reads SSL_CERT_FILE when it is imported, which in this process was long ago
    trusting = ssl.create_default_context(cafile=str(in_cloud.authority.path))
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusting)
    monkeypatch.setenv("TUNEPRESS_NETWORK_SECONDS", "10")
    # a variable that is for another account must not take the place of what the datastore says
    elsewhere = "BlobEndpoint=http://127.0.0.1:9/other;AccountName=other;AccountKey=c2VjcmV0"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", elsewhere)


def read(url: str, folder: Path) -> bytes:
    download(identify_file(url), folder / "tone.jsonl")
    return (folder / "tone.jsonl").read_bytes()


@pytest.mark.parametrize("credentials", ["AccountKey", "Sas", "None"])
def test_a_file_is_read_with_what_the_store_gives_or_as_the_user(
    credentials: str, storage: Azurite, machine_learning: MachineLearning, tmp_path: Path
) -> None:
    storage.upload(CONTAINER, "a/tone.jsonl", ROWS)
    machine_learning.datastores[STORE] = blob_store(credentials=credentials)
    if credentials == "Sas":
        machine_learning.secrets[STORE] = {"secretsType": "Sas", "sasToken": storage.sas_token}
    account, path = resolve(FILE)
    assert (account.name, account.key, path) == (
        ACCOUNT,
        storage.account_key if credentials == "AccountKey" else None,
        f"{CONTAINER}/a/tone.jsonl",
    )
    assert read(FILE, tmp_path) == ROWS


def test_whoever_may_not_see_the_key_reads_as_the_user(storage: Azurite, in_cloud: Cloud, tmp_path: Path) -> None:
    def denied(request: Request) -> Answer:
        return refuse(403, "AuthorizationFailed", "The client does not have authorization to perform action 'listSecrets'")

    storage.upload(CONTAINER, "a/tone.jsonl", ROWS)
    in_cloud.route("POST", f"{ARM}/datastores/{STORE}/listSecrets", denied)
    assert resolve(FILE)[0].key is None
    assert read(FILE, tmp_path) == ROWS


def test_a_store_of_the_data_lake_is_read_as_blobs(storage: Azurite, machine_learning: MachineLearning, tmp_path: Path) -> None:
    storage.upload("lake", "a/tone.jsonl", ROWS)
    lake = blob_store(credentials="None") | {"datastoreType": "AzureDataLakeGen2", "filesystem": "lake"}
    machine_learning.datastores["lake"] = lake
    assert read(f"{URI}/datastores/lake/paths/a/tone.jsonl", tmp_path) == ROWS


def test_the_workspace_of_the_environment_will_do(
    storage: Azurite, machine_learning: MachineLearning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.upload(CONTAINER, "a/tone.jsonl", ROWS)
    names = ("SUBSCRIPTION", "RESOURCEGROUP", "WORKSPACE_NAME")
    for name, value in zip(names, URI.removeprefix("azureml://").split("/")[1::2], strict=True):
        monkeypatch.setenv(f"AZUREML_ARM_{name}", value)
    assert read(f"azureml://datastores/{STORE}/paths/a/tone.jsonl", tmp_path) == ROWS


def test_the_key_is_in_no_text_of_the_account(storage: Azurite) -> None:
    account, _ = resolve(FILE)
    assert account.key == storage.account_key
    assert storage.account_key not in repr(account)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"{URI}/datastores/none/paths/a/tone.jsonl", "Could not find datastore: none"),
        (
            f"{URI}/datastores/shares/paths/a/tone.jsonl",
            "datastore shares is an AzureFileDatastore; rows come from Azure Blob or Data Lake Gen2",
        ),
        (f"{URI}/datastores/{STORE}/a/tone.jsonl", "not an address of a file in a datastore; write azureml://subscriptions/"),
        (f"{URI}/datastores/{STORE}/paths/none.jsonl", "no such file there"),
        (f"{URI}/datastores/empty/paths/none.jsonl", "there is no container nowhere"),
    ],
)
def test_what_is_not_there_is_one_line(url: str, message: str, storage: Azurite, machine_learning: MachineLearning) -> None:
    storage.upload(CONTAINER, "a/tone.jsonl", ROWS)
    machine_learning.datastores["empty"] = blob_store(container="nowhere", credentials="None")
    machine_learning.datastores["shares"] = blob_store(credentials="None") | {"datastoreType": "AzureFile", "fileShareName": "s"}
    with pytest.raises(InputError) as refused:
        identify_file(url)
    assert str(refused.value).startswith(f"{url}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_azure_out_of_reach_has_not_answered(in_cloud: Cloud) -> None:
    in_cloud.reachable = False
    with pytest.raises(UnansweredError):
        identify_file(FILE)


def test_nobody_signed_in_has_not_answered(in_cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", "")  # no az here
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "dev")  # no wait for a virtual machine's identity
    with pytest.raises(UnansweredError, match="not logged in to Azure"):
        identify_file(FILE)
