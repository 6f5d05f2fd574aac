"""remote_file on object stores: a real Azurite for Azure, and for S3 a server of this project that answers s3fs."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure.azurite import Azurite
from tests.loopback import Files, serving, silence
from tunepress.core.errors import InputError
from tunepress.remote.errors import UnansweredError
from tunepress.remote.file import download, identify_file

ROWS = b'{"phrase": "a day at the sea", "tone": "joy"}\n'


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEPRESS_NETWORK_SECONDS", "20")
    for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def signed_in(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Azurite:
    """The storage, with the connection string for it in the environment."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    return azurite


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    with serving() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        server.files["/bucket/a/tone.jsonl"] = ROWS
        yield server


def refused(url: str) -> str:
    with pytest.raises(InputError) as raised:
        identify_file(url)
    assert str(raised.value).startswith(url)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Azure


@pytest.mark.parametrize("scheme", ["abfs", "abfss", "az", "azure"])
def test_every_name_of_blob_storage_is_understood(scheme: str, signed_in: Azurite) -> None:
    etag = signed_in.upload("rows", "a/tone.jsonl", ROWS)
    identified = identify_file(f"{scheme}://rows/a/tone.jsonl")
    assert identified.etag == etag.strip('"')
    assert (identified.size, identified.md5) == (len(ROWS), hashlib.md5(ROWS).hexdigest())


def test_a_changed_blob_has_another_identity_and_its_bytes_come(signed_in: Azurite, tmp_path: Path) -> None:
    signed_in.upload("rows", "b.jsonl", ROWS)
    first = identify_file("abfs://rows/b.jsonl")
    assert identify_file("abfs://rows/b.jsonl") == first
    signed_in.upload("rows", "b.jsonl", ROWS.upper())
    with pytest.raises(InputError, match="was changed while it was read"):
        download(first, tmp_path / "b.jsonl")
    second = identify_file("abfs://rows/b.jsonl")
    assert second.etag != first.etag
    download(second, tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_bytes() == ROWS.upper()


@pytest.mark.parametrize("content", [b"", ROWS * 200_000], ids=["empty", "of three blocks"])
def test_the_bytes_come_as_they_are(content: bytes, signed_in: Azurite, tmp_path: Path) -> None:
    signed_in.upload("rows", "size.jsonl", content)
    download(identify_file("abfs://rows/size.jsonl"), tmp_path / "size.jsonl")
    assert (tmp_path / "size.jsonl").read_bytes() == content


def test_a_token_in_a_connection_string_will_do(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    azurite.upload("rows", "token.jsonl", ROWS)
    string = f"BlobEndpoint={azurite.account_url};SharedAccessSignature={azurite.sas_token}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", string)
    assert identify_file("abfs://rows/token.jsonl").size == len(ROWS)


def test_what_is_not_there_is_named(signed_in: Azurite) -> None:
    signed_in.upload("rows", "folder/c.jsonl", ROWS)
    assert refused("abfs://rows/none.jsonl").endswith(": no such file there")
    assert refused("abfs://nowhere/none.jsonl").endswith(": there is no container nowhere")
    assert refused("abfs://rows/folder").endswith(": is a folder; name each file of rows")


def test_a_wrong_key_is_no_permission(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    azurite.upload("rows", "d.jsonl", ROWS)
    wrong = azurite.connection_string.replace(azurite.account_key, azurite.account_key[::-1].lstrip("=") + "==")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", wrong)
    message = refused("abfs://rows/d.jsonl")
    assert message.endswith(": no permission to read it")


def test_no_account_says_what_to_set() -> None:
    assert "set AZURE_STORAGE_ACCOUNT, or write abfs://container@account.dfs.core.windows.net/path" in refused(
        "abfs://rows/d.jsonl"
    )


def test_a_silent_store_has_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEPRESS_NETWORK_SECONDS", "1")
    with silence() as url:
        string = f"BlobEndpoint={url}/account;AccountName=account;AccountKey=c2VjcmV0"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", string)
        with pytest.raises(UnansweredError, match="no answer within"):
            identify_file("abfs://rows/tone.jsonl")


def test_a_store_that_goes_silent_during_a_download_is_noticed(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    azurite.upload("rows", "e.jsonl", ROWS)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    identified = identify_file("abfs://rows/e.jsonl")
    monkeypatch.setenv("TUNEPRESS_NETWORK_SECONDS", "1")
    azurite.stop()
    try:
        with pytest.raises(UnansweredError):
            download(identified, tmp_path / "e.jsonl")
    finally:
        azurite.start()


# S3


def test_an_object_of_s3_has_an_identity_and_bytes(s3: Files, tmp_path: Path) -> None:
    s3.files["/bucket/a/tone.jsonl"] = ROWS * 200_000
    identified = identify_file("s3://bucket/a/tone.jsonl")
    assert (identified.size, len(identified.etag)) == (len(ROWS) * 200_000, 16)
    assert s3.asked == ["HEAD /bucket/a/tone.jsonl"]
    download(identified, tmp_path / "tone.jsonl")
    assert (tmp_path / "tone.jsonl").read_bytes() == ROWS * 200_000


def test_what_is_not_there_in_s3_is_named(s3: Files) -> None:
    assert refused("s3://bucket/none.jsonl").endswith(": no such file there")
    s3.statuses["/nowhere"] = s3.statuses["/nowhere/none.jsonl"] = 404
    assert refused("s3://nowhere/none.jsonl").endswith(": there is no bucket nowhere")
    s3.statuses["/bucket/a/tone.jsonl"] = 403
    assert refused("s3://bucket/a/tone.jsonl").endswith(": no permission to read it")
