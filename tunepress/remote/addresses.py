"""Addresses of files of rows on other machines: which are supported, and what they must not contain."""

import re
from pathlib import PurePosixPath
from urllib.parse import SplitResult, parse_qsl, urlsplit

from tunepress.core.row_files import kind_problem

BLOB = {"abfs", "abfss", "az", "azure"}  # a container of Azure Blob Storage, as in adlfs and DVC
SCHEMES = BLOB | {"azureml", "http", "https", "s3"}
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
SECRET = re.compile(r"^sig$|signature|token|secret|passw|credential|api.?key|access.?key|^key$", re.IGNORECASE)


def is_remote(file: str) -> bool:
    """Whether a file is an address and not a path."""
    return "://" in file


def url_problem(url: str) -> str | None:
    """Why rows cannot be read from an address, in one line without its secrets; None if they can.

    An address is written to params.yaml and therefore committed to git, so it must not contain a secret.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        return f"{url.partition('://')[0]}://...: not a valid address ({error})"
    bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in SCHEMES:
        return f"{bare}: unknown kind of address {parts.scheme}://; known: {', '.join(sorted(SCHEMES))}"
    user = parts.username if parts.scheme not in BLOB else None  # some servers accept a token as the user name
    if user or parts.password or any(SECRET.search(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        return f"{bare}: the address contains a secret, and addresses are committed to git; {secret_cure(parts)}"
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        return f"{url}: over http anyone on the way can change the rows; use https"
    if not parts.netloc or not parts.path.strip("/"):
        return f"{url}: names no file"
    problem = kind_problem(PurePosixPath(parts.path).name)
    return f"{bare}: {problem}" if problem else None


def secret_cure(parts: SplitResult) -> str:
    """What to do instead of writing a secret into an address."""
    if blob := blob_url(parts):
        return f"write {blob} and set AZURE_STORAGE_SAS_TOKEN"
    if parts.scheme in BLOB:
        return "remove it and set AZURE_STORAGE_SAS_TOKEN"
    if parts.scheme == "s3" or "amazonaws.com" in (parts.hostname or ""):
        return "write s3://bucket/key and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return "download the file and name its path"


def blob_url(parts: SplitResult) -> str | None:
    """The abfs address of an Azure blob, which is read with credentials, for an https address; None if it is not a blob."""
    account, blob, domain = (parts.hostname or "").partition(".blob.")
    container, _, path = parts.path.lstrip("/").partition("/")
    return f"abfs://{container}@{account}.dfs.{domain}/{path}" if parts.scheme == "https" and blob else None
