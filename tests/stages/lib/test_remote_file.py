"""remote_file: versions and bytes over http(s), and what is said where there are none; tests/azure has the object stores."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stages.lib import remote_errors
from stages.lib.edge.errors import InputError
from stages.lib.remote_errors import UnansweredError
from stages.lib.remote_file import ask, download
from tests.loopback import Files, serving, silence

ROWS = b'{"phrase": "a day at the sea", "tone": "joy"}\n'


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEPRESS_NETWORK_SECONDS", "60")  # a busy machine is no silent server
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def files() -> Iterator[Files]:
    with serving() as server:
        server.files["/a/tone.jsonl"] = ROWS
        yield server


def test_an_identity_is_asked_for_without_reading_the_file(files: Files) -> None:
    found = ask(f"{files.url}/a/tone.jsonl")
    assert (found.size, len(found.etag), found.md5) == (len(ROWS), 16, None)
    assert files.asked == ["HEAD /a/tone.jsonl"]


def test_an_identity_changes_with_the_file_and_only_with_it(files: Files) -> None:
    first = ask(f"{files.url}/a/tone.jsonl")
    assert ask(f"{files.url}/a/tone.jsonl") == first
    files.files["/a/tone.jsonl"] = ROWS.upper()
    assert ask(f"{files.url}/a/tone.jsonl").etag != first.etag


@pytest.mark.parametrize("content", [ROWS, b"", ROWS * 100_000], ids=["small", "empty", "large"])
def test_the_bytes_come_as_they_are(content: bytes, files: Files, tmp_path: Path) -> None:
    files.files["/a/tone.jsonl"] = content
    download(ask(f"{files.url}/a/tone.jsonl"), tmp_path / "tone.jsonl")
    assert (tmp_path / "tone.jsonl").read_bytes() == content


def test_a_file_that_changes_between_the_question_and_the_download_is_refused(files: Files, tmp_path: Path) -> None:
    found = ask(f"{files.url}/a/tone.jsonl")
    files.files["/a/tone.jsonl"] = ROWS.upper()
    with pytest.raises(InputError, match="was changed while it was read"):
        download(found, tmp_path / "tone.jsonl")


def test_a_file_that_is_not_as_long_as_was_said_is_refused(files: Files, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was changed while it was read"):
        download(replace(ask(f"{files.url}/a/tone.jsonl"), size=3), tmp_path / "tone.jsonl")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, "no such file there"),
        (410, "no such file there"),
        (401, "no permission to read it"),
        (403, "no permission to read it"),
    ],
)
def test_a_no_is_an_error_that_names_the_address(status: int, said: str, files: Files) -> None:
    files.statuses["/a/tone.jsonl"] = status
    with pytest.raises(InputError) as raised:
        ask(f"{files.url}/a/tone.jsonl")
    assert str(raised.value) == f"{files.url}/a/tone.jsonl: {said}"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_has_not_answered(status: int, files: Files) -> None:
    files.statuses["/a/tone.jsonl"] = status
    with pytest.raises(UnansweredError, match=f"status {status}"):
        ask(f"{files.url}/a/tone.jsonl")


def test_a_server_that_is_not_there_has_not_answered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(UnansweredError, match="out of reach"):
        ask(f"http://127.0.0.1:{port}/tone.jsonl")


def test_a_server_that_is_silent_has_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEPRESS_NETWORK_SECONDS", "1")
    with silence() as url, pytest.raises(UnansweredError, match=r"no answer within 1 s \(TUNEPRESS_NETWORK_SECONDS\)"):
        ask(f"{url}/tone.jsonl")


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan"])
def test_a_time_limit_that_is_none_is_refused(value: str, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEPRESS_NETWORK_SECONDS", value)
    with pytest.raises(InputError, match=f"TUNEPRESS_NETWORK_SECONDS: '{value}' is no number of seconds"):
        ask(f"{files.url}/a/tone.jsonl")


def test_a_server_without_versions_is_refused(files: Files) -> None:
    files.versions = False
    with pytest.raises(InputError, match="does not tell versions apart"):
        ask(f"{files.url}/a/tone.jsonl")


def test_a_private_blob_says_how_to_ask_with_credentials() -> None:
    url = "https://account.blob.core.windows.net/rows/a/tone.jsonl"
    said = str(remote_errors.meaning(url, [FileNotFoundError(url)]))
    assert said.endswith("no such file there; if it is not public, write abfs://rows@account.dfs.core.windows.net/a/tone.jsonl")
