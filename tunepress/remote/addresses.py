"""Addresses of files of rows that do not lie on this machine: which there are, and what must not stand in one."""

import re
from pathlib import PurePosixPath
from urllib.parse import SplitResult, parse_qsl, urlsplit

from tunepress.config.data import Datastore

FORMATS = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".parquet": "parquet"}  # of rows, by suffix
BLOB = {"abfs", "abfss", "az", "azure"}  # one container of Azure Blob Storage, as adlfs and DVC call it
SCHEMES = BLOB | {"azureml", "http", "https", "s3"}
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
SECRET = re.compile(r"^sig$|signature|token|secret|passw|credential|api.?key|access.?key|^key$", re.IGNORECASE)


def is_remote(file: str) -> bool:
    """Whether a file is named by an address, not by a path."""
    return "://" in file


def datastore_url(datastore: Datastore) -> str:
    """The address of a file in a datastore, as Azure ML's studio shows it."""
    return (
        f"azureml://subscriptions/{datastore.subscription_id}/resourcegroups/{datastore.resource_group}"
        f"/workspaces/{datastore.workspace_name}/datastores/{datastore.datastore_name}/paths/{datastore.relative_path.lstrip('/')}"
    )


def url_problem(url: str) -> str | None:
    """Why rows cannot come from an address, in one line that repeats no secret; None where they can.

    An address ends up in params.yaml and so in git.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        return f"{url.partition('://')[0]}://...: is no address ({error})"
    bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in SCHEMES:
        return f"{bare}: unknown kind of address {parts.scheme}://; known: {', '.join(sorted(SCHEMES))}"
    user = parts.username if parts.scheme not in BLOB else None  # some servers take a token as the user's name
    if user or parts.password or any(SECRET.search(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        return f"{bare}: the address holds a secret, and addresses are kept in git; {secret_cure(parts)}"
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        return f"{url}: over http anyone on the way can change the rows; use https"
    if not parts.netloc or not parts.path.strip("/"):
        return f"{url}: names no file"
    kind = PurePosixPath(parts.path).suffix
    if kind.lower() not in FORMATS:
        return f"{bare}: unknown kind of file {kind!r}; known: {', '.join(FORMATS)}"
    return None


def secret_cure(parts: SplitResult) -> str:
    """Where the secret of an address belongs."""
    if blob := blob_url(parts):
        return f"write {blob} and set AZURE_STORAGE_SAS_TOKEN"
    if parts.scheme in BLOB:
        return "leave it out and set AZURE_STORAGE_SAS_TOKEN"
    if parts.scheme == "s3" or "amazonaws.com" in (parts.hostname or ""):
        return "write s3://bucket/key and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return "download the file and name its path"


def blob_url(parts: SplitResult) -> str | None:
    """The address that asks with credentials for a blob that https asks for without; None where it is no blob of Azure's."""
    account, blob, domain = (parts.hostname or "").partition(".blob.")
    container, _, path = parts.path.lstrip("/").partition("/")
    return f"abfs://{container}@{account}.dfs.{domain}/{path}" if parts.scheme == "https" and blob else None
