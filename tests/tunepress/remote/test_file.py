"""file: versions and content over http(s), and the errors; the object stores are tested in tests/azure."""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from yarl import URL

from tests.loopback import Files, serving, silence
from tunepress.core.errors import InputError
from tunepress.remote import errors as remote_errors
from tunepress.remote.errors import UnansweredError
from tunepress.remote.file import check_redirect, download, identify_file

ROWS = b'{"phrase": "a day at the sea", "tone": "joy"}\n'


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEPRESS_NETWORK_SECONDS", "60")  # a busy machine is not a silent server
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def files() -> Iterator[Files]:
    with serving() as server:
        server.files["/a/tone.jsonl"] = ROWS
        yield server


def test_a_version_is_requested_without_reading_the_file(files: Files) -> None:
    version = identify_file(f"{files.url}/a/tone.jsonl")
    assert (version.size, len(version.etag), version.md5) == (len(ROWS), 16, None)
    assert files.asked == ["HEAD /a/tone.jsonl"]


def test_an_identity_changes_with_the_file_and_only_with_it(files: Files) -> None:
    first = identify_file(f"{files.url}/a/tone.jsonl")
    assert identify_file(f"{files.url}/a/tone.jsonl") == first
    files.files["/a/tone.jsonl"] = ROWS.upper()
    assert identify_file(f"{files.url}/a/tone.jsonl").etag != first.etag


@pytest.mark.parametrize("content", [ROWS, b"", ROWS * 100_000], ids=["small", "empty", "large"])
def test_the_bytes_come_as_they_are(content: bytes, files: Files, tmp_path: Path) -> None:
    files.files["/a/tone.jsonl"] = content
    download(identify_file(f"{files.url}/a/tone.jsonl"), tmp_path / "tone.jsonl")
    assert (tmp_path / "tone.jsonl").read_bytes() == content


def test_a_file_that_changes_between_the_question_and_the_download_is_refused(files: Files, tmp_path: Path) -> None:
    version = identify_file(f"{files.url}/a/tone.jsonl")
    files.files["/a/tone.jsonl"] = ROWS.upper()
    with pytest.raises(InputError, match="was changed while it was read"):
        download(version, tmp_path / "tone.jsonl")


def test_a_file_of_another_size_is_rejected(files: Files, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was changed while it was read"):
        download(replace(identify_file(f"{files.url}/a/tone.jsonl"), size=3), tmp_path / "tone.jsonl")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, "no such file there"),
        (410, "no such file there"),
        (401, "no permission to read it"),
        (403, "no permission to read it"),
    ],
)
def test_a_no_is_an_error_that_names_the_address(status: int, expected: str, files: Files) -> None:
    files.statuses["/a/tone.jsonl"] = status
    with pytest.raises(InputError) as raised:
        identify_file(f"{files.url}/a/tone.jsonl")
    assert str(raised.value) == f"{files.url}/a/tone.jsonl: {expected}"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_has_not_answered(status: int, files: Files) -> None:
    files.statuses["/a/tone.jsonl"] = status
    with pytest.raises(UnansweredError, match=f"status {status}"):
        identify_file(f"{files.url}/a/tone.jsonl")


def test_a_server_that_is_not_there_has_not_answered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(UnansweredError, match="cannot be reached"):
        identify_file(f"http://127.0.0.1:{port}/tone.jsonl")


def test_a_server_that_is_silent_has_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEPRESS_NETWORK_SECONDS", "1")
    with silence() as url, pytest.raises(UnansweredError, match=r"no answer within 1 s \(TUNEPRESS_NETWORK_SECONDS\)"):
        identify_file(f"{url}/tone.jsonl")


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan"])
def test_an_invalid_timeout_is_rejected(value: str, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEPRESS_NETWORK_SECONDS", value)
    with pytest.raises(InputError, match=f"TUNEPRESS_NETWORK_SECONDS: must be a positive number of seconds, got '{value}'"):
        identify_file(f"{files.url}/a/tone.jsonl")


def test_a_server_without_versions_is_refused(files: Files) -> None:
    files.versions = False
    with pytest.raises(InputError, match="does not tell versions apart"):
        identify_file(f"{files.url}/a/tone.jsonl")


def test_a_private_blob_says_how_to_ask_with_credentials() -> None:
    url = "https://account.blob.core.windows.net/rows/a/tone.jsonl"
    message = str(remote_errors.translate(url, [FileNotFoundError(url)]))
    assert message.endswith(
        "no such file there; if it is not public, write abfs://rows@account.dfs.core.windows.net/a/tone.jsonl"
    )


# redirects


def test_a_redirect_within_this_machine_is_followed(files: Files, tmp_path: Path) -> None:
    files.redirects["/moved.jsonl"] = "/a/tone.jsonl"
    with serving() as other:
        other.redirects["/b.jsonl"] = f"http://localhost:{files.server_port}/moved.jsonl"
        version = identify_file(f"{other.url}/b.jsonl")
        download(version, tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_bytes() == ROWS


@pytest.mark.parametrize(
    "target", ["http://rows.example/tone.jsonl", "http://93.184.216.34/tone.jsonl", "//rows.example/t.jsonl"]
)
def test_a_redirect_to_where_rows_can_be_changed_on_the_way_is_refused(target: str, files: Files) -> None:
    files.redirects["/moved.jsonl"] = target
    with pytest.raises(
        InputError, match=r"moved\.jsonl: is redirected to http://[a-z0-9.]+; over http anyone on the way"
    ) as raised:
        identify_file(f"{files.url}/moved.jsonl")
    assert "tone.jsonl" not in str(raised.value)  # a path may hold a secret


@pytest.mark.parametrize("local", ["http://127.0.0.1/x", "http://localhost/x", "http://93.184.216.34/x"])
def test_a_redirect_from_https_to_http_is_refused(local: str) -> None:
    for first in ("https://93.184.216.34/a", "https://127.0.0.1/a"):
        with pytest.raises(InputError, match="over http anyone on the way can change the rows"):
            asyncio.run(check_redirect(URL(first), URL(local)))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0.0.0.0", "localhost", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254",
        "100.64.0.1", "[::1]", "[fe80::1]", "[fd00::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]",
    ],
)  # fmt: skip
def test_a_redirect_from_outside_into_a_private_network_is_refused(host: str) -> None:
    first, target = URL("https://93.184.216.34/a"), URL(f"https://{host}/latest/meta-data")
    with pytest.raises(InputError, match="in a private network"):
        asyncio.run(check_redirect(first, target))
    asyncio.run(check_redirect(URL("https://10.0.0.1/a"), target))  # from inside it is one's own matter


def test_a_redirect_from_https_to_https_outside_is_followed() -> None:
    asyncio.run(check_redirect(URL("https://93.184.216.34/a"), URL("https://8.8.8.8/b")))
    asyncio.run(check_redirect(URL("https://rows.invalid/a"), URL("https://other.invalid/b")))  # names that a proxy may know


def test_credentials_are_not_sent_to_another_host(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hush\n", encoding="utf-8")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving() as other:
        other.redirects["/b.jsonl"] = f"http://localhost:{files.server_port}/a/tone.jsonl"
        identify_file(f"{other.url}/b.jsonl")
        assert other.credentials[0]
    assert set(files.credentials) == {None}
