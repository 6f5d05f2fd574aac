"""addresses: those that data.files accepts, and those that must not be committed to git."""

import pytest

from tunepress.remote.addresses import is_remote, url_problem

SECRET = "bm9ib2R5IG1heSByZWFkIHRoaXM"  # any text


@pytest.mark.parametrize(
    "url",
    [
        "abfs://rows/tone.jsonl",
        "abfs://rows@account.dfs.core.windows.net/a/tone.parquet",
        "azure://rows/a/tone.csv",
        "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/d/paths/a/tone.json",
        "https://example.org/tone.jsonl",
        "https://example.org/tone.jsonl?download=true&version=2",
        "http://127.0.0.1:8000/tone.NDJSON",
        "http://[::1]:8000/tone.jsonl",
        "s3://bucket/tone.jsonl",
    ],
)
def test_an_address_of_a_file_of_rows_is_taken(url: str) -> None:
    assert is_remote(url)
    assert url_problem(url) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("gs://bucket/tone.jsonl", "unknown kind of address gs://; known: abfs, "),
        ("http://example.org/tone.jsonl", "use https"),
        ("http://127.0.0.1.example.org/tone.jsonl", "use https"),
        ("abfs://rows", "names no file"),
        ("s3://bucket/", "names no file"),
        ("https://example.org/tone.zip", "unknown kind of file '.zip'; known: .json, "),
        ("abfs://rows/folder", "unknown kind of file ''; known: .json, "),
    ],
)
def test_anything_else_is_refused(url: str, expected: str) -> None:
    assert expected in str(url_problem(url))
    assert str(url_problem(url)).startswith(url)


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        (
            "https://account.blob.core.windows.net/rows/a/tone.jsonl?sv=1&sig=",
            "write abfs://rows@account.dfs.core.windows.net/a/tone.jsonl and set AZURE_STORAGE_SAS_TOKEN",
        ),
        ("abfs://rows/tone.jsonl?sv=1&sig=", "remove it and set AZURE_STORAGE_SAS_TOKEN"),
        ("https://b.s3.amazonaws.com/tone.jsonl?X-Amz-Signature=", "write s3://bucket/key and set AWS_"),
        ("https://example.org/tone.jsonl?access_token=", "download the file and name its path"),
    ],
)
def test_a_secret_is_refused_without_being_repeated(url: str, instead: str) -> None:
    problem = str(url_problem(url + SECRET))
    assert problem.startswith(url.partition("?")[0])
    assert instead in problem
    assert SECRET not in problem
    assert "\n" not in problem


@pytest.mark.parametrize("url", [f"https://{SECRET}@example.org/tone.jsonl", f"http://{SECRET}@example.org/tone.jsonl"])
def test_a_token_in_place_of_a_user_is_refused_without_being_repeated(url: str) -> None:
    problem = str(url_problem(url))
    assert problem.partition("//")[2].startswith("example.org/tone.jsonl: the address contains a secret")
    assert SECRET not in problem


def test_an_invalid_address_is_an_error() -> None:
    assert url_problem("https://[b/rows.csv") == "https://...: not a valid address (Invalid IPv6 URL)"


def test_a_password_is_refused_without_being_repeated() -> None:
    problem = str(url_problem(f"https://someone:{SECRET}@example.org/tone.jsonl"))
    assert problem.startswith("https://example.org/tone.jsonl: the address contains a secret")
    assert SECRET not in problem


def test_a_path_is_not_an_address() -> None:
    assert not is_remote("data/raw/tone.jsonl")
