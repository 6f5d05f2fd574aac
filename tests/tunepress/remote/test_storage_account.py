"""storage_account: the account and the credential that follow from an address and the environment."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tunepress.core.errors import InputError
from tunepress.remote.storage_account import Account, account_from_environment, hidden_variables, variable

URL = "abfs://rows/tone.jsonl"
STRING = "DefaultEndpointsProtocol=https;AccountName=known;AccountKey=a2V5;EndpointSuffix=core.windows.net"


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_STORAGE_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("variable", ["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"])
def test_the_environment_names_the_account_of_a_container(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "known")
    assert account_from_environment(URL, None) == Account("known")
    assert Account("known").connection_string is None


@pytest.mark.parametrize("variable", ["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"])
def test_a_key_is_for_the_account_beside_it_and_for_no_other(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "known")
    monkeypatch.setenv(variable, "a2V5")
    assert account_from_environment(URL, "known") == Account("known", key="a2V5")
    assert account_from_environment(URL, "other") == Account("other")


def test_a_token_needs_no_account_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "?sv=1&sig=x")
    account = account_from_environment(URL, "named")
    assert isinstance(account, Account)
    assert account.connection_string == "BlobEndpoint=https://named.blob.core.windows.net;SharedAccessSignature=sv=1&sig=x"


def test_a_connection_string_is_for_its_account_and_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", STRING)
    assert account_from_environment(URL, None) == STRING
    assert account_from_environment(URL, "known") == STRING
    assert account_from_environment(URL, "know") == Account("know")


def test_no_account_is_one_line_that_says_what_to_set() -> None:
    with pytest.raises(InputError, match="set AZURE_STORAGE_ACCOUNT, or write abfs://container@account"):
        account_from_environment(URL, None)


def test_no_credential_goes_to_a_host_that_is_not_of_azure() -> None:
    with pytest.raises(InputError, match=r"core\.example\.org is not one of Azure's clouds"):
        account_from_environment(URL, "known", "core.example.org")


def test_a_key_is_in_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "a2V5" not in repr(Account("known", key="a2V5"))


def test_a_thread_that_hides_the_variables_hides_them_from_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "known")

    def seen(number: int) -> str | None:
        with hidden_variables():
            assert "AZURE_STORAGE_ACCOUNT" not in os.environ
        return variable("ACCOUNT")

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(seen, range(2000))) == {"known"}
