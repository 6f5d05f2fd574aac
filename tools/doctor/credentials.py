"""The names of available credentials. Their values are never stored, compared or printed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tools.doctor import dvc_project
from tools.doctor.finding import Finding, ok, warning

TIMEOUT = 15  # seconds for az
AZURE = (  # read by adlfs, azure-identity and dvc-azure
    "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_FEDERATED_TOKEN_FILE",
)  # fmt: skip
AWS = ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_WEB_IDENTITY_TOKEN_FILE")
NO_CREDENTIALS = (
    "url", "endpointurl", "endpoint_url", "region", "account_name", "allow_anonymous_login", "read_timeout", "connect_timeout",
    "version_aware", "worktree", "jobs",
)  # fmt: skip


def findings() -> Iterator[Finding]:
    yield hugging_face()
    yield ok("Azure variables", listed(AZURE), "only rows, models and remotes in Azure need them; docker/run passes them on")
    yield azure_login()
    yield ok("AWS", listed(AWS, Path.home() / ".aws/credentials"), "only rows and remotes in S3 need them")
    yield from remote()


def hugging_face() -> Finding:
    from huggingface_hub import get_token

    advice = "only private and gated repositories need one: `hf auth login`, or HF_TOKEN in the environment"
    if not get_token():
        return ok("Hugging Face token", "none", advice)
    place = next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)), "the file of `hf auth login`")
    return ok("Hugging Face token", f"one, from {place}")


def azure_login() -> Finding:
    """The login of az, which azure-identity uses if no variable overrides it."""
    advice = "az login, unless a variable has the credentials"
    az = shutil.which("az")
    if az is None:
        return ok("az login", "az is not installed", advice)
    try:
        done = subprocess.run([az, "account", "show"], capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return warning("az login", f"az did not answer in {TIMEOUT} s", advice)
    return ok("az login", "none", advice) if done.returncode else ok("az login", "logged in")


def remote() -> Iterator[Finding]:
    """The credentials in the configuration of the default remote."""
    name = dvc_project.default_remote()
    if name:
        options = sorted(key for key in dvc_project.remote(name) if key not in NO_CREDENTIALS)
        advice = "dvc remote modify --local keeps credentials out of git"
        yield ok(f"remote {name}", ", ".join(options) or "no credentials in .dvc/config.local", advice)


def listed(variables: tuple[str, ...], file: Path | None = None) -> str:
    """The names of the variables that are set, and the file if it exists."""
    names = [name for name in variables if os.environ.get(name)] + (
        [f"~/{file.relative_to(Path.home())}"] if file and file.exists() else []
    )
    return ", ".join(names) or "none"
