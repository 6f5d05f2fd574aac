"""`make remote-azure`: where the address and the key go, and what is said of an account that does not let one in."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure.azurite import Azurite
from tools.azure.remote import set_up
from tunepress.core.errors import InputError

WRONG = "YWJjZGVmZ2hpamtsbW5vcA=="


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty DVC project, the working directory, and no account in the environment."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path / "none"))
    for name in ("CONNECTION_STRING", "ACCOUNT", "KEY", "SAS_TOKEN"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    yield tmp_path


def test_that_git_gets_the_address_alone(project: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    azurite.container("address")
    output = set_up("azure://address/some/path", account=None, store=False)
    assert output.startswith(
        "the DVC remote 'azure' is azure://address/some/path in account tunepress, "
        "reached with the connection string of the environment; commit .dvc/config"
    )
    written = (project / ".dvc/config").read_text()
    assert [line.strip() for line in written.splitlines()] == [
        "[core]",
        "remote = azure",
        "['remote \"azure\"']",
        "url = azure://address/some/path",
    ]
    assert not (project / ".dvc/config.local").exists()


def test_that_a_stored_key_replaces_an_earlier_one_in_a_file_of_its_owner(
    project: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = project / ".dvc/config.local"
    local.write_text("['remote \"azure\"']\n    jobs = 2\n    account_name = old\n    account_key = b2xk\n")
    local.chmod(0o644)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    azurite.container("stored")
    set_up("azure://stored", account=None, store=True)
    assert stat.S_IMODE(local.stat().st_mode) == 0o600
    kept = local.read_text()
    assert azurite.connection_string in kept
    assert "jobs = 2" in kept
    assert "account_key" not in kept
    assert azurite.account_key not in (project / ".dvc/config").read_text()
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    assert "the connection string of .dvc/config.local" in set_up("azure://stored/deeper", account=None, store=False)


def connections(azurite: Azurite) -> dict[str, str]:
    """Connection strings that do not work, by what is wrong with them."""
    good = azurite.connection_string
    return {
        "key": good.replace(azurite.account_key, WRONG),
        "padding": good.replace(azurite.account_key, WRONG[:-1]),
        "port": good.replace(f":{azurite.port}/", ":9/"),
        "form": "AccountName",
        "container": good,
    }


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "key",
            "account tunepress refuses the connection string of the environment for container 'absent': AuthorizationFailure",
        ),
        ("padding", "account tunepress: no login with the connection string of the environment: Incorrect padding"),
        ("port", "127.0.0.1:9/tunepress does not answer as expected: Cannot connect to host 127.0.0.1:9"),
        ("form", "the connection string of the environment is malformed"),
        ("container", "account tunepress has no container 'absent': fix the URL, or create it with `az storage container create"),
    ],
)
def test_that_nothing_is_written_where_dvc_would_not_get_in(
    project: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch, what: str, message: str
) -> None:
    before = (project / ".dvc/config").read_text()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connections(azurite)[what])
    with pytest.raises(InputError) as caught:
        set_up("azure://absent/path", account=None, store=True)
    assert str(caught.value).startswith(message)
    assert WRONG not in str(caught.value)
    assert (project / ".dvc/config").read_text() == before
    assert not (project / ".dvc/config.local").exists()


def test_that_no_account_is_said(project: Path) -> None:
    with pytest.raises(InputError, match="no credentials for Azure: set AZURE_STORAGE_CONNECTION_STRING, or"):
        set_up("azure://container/path", account=None, store=False)


@pytest.mark.parametrize(
    "url",
    ["", "s3://container", "azure://Container", "azure://a", "azure://container/path?sig=abc", "azure://me:key@container/path"],
)
def test_that_an_address_holds_nothing_else(project: Path, url: str) -> None:
    with pytest.raises(InputError, match=r"URL= must be azure://container/path, without an account, a key or a token") as caught:
        set_up(url, account=None, store=False)
    assert "sig=" not in str(caught.value)


def test_that_a_secret_in_git_is_found(project: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    (project / ".dvc/config").write_text("['remote \"azure\"']\n    url = azure://c\n    account_key = abc\n")
    with pytest.raises(InputError, match=r"\.dvc/config is in git and has remote\.azure\.account_key: remove it with"):
        set_up("azure://container/path", account=None, store=False)
