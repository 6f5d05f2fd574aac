"""Checks of a job's YAML without a network: Azure ML's schema, and what it does not check."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from azure.ai.ml import load_job
from azure.ai.ml.entities import Job
from azure.ai.ml.exceptions import ValidationException
from marshmallow import ValidationError

from tunepress.core.errors import InputError
from tunepress.remote.workspace import Workspace, connect

NOWHERE = Workspace("none", "none", "none")  # the client needs one, but does not contact it to validate a job
BOUND = re.compile(r"\$\{\{\s*(inputs|outputs)\.(\w+)\s*\}\}")
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|(?:^|_)KEY$|CONNECTION_STRING|SAS")  # in a variable's name
SHORTEST = 8  # characters of a secret that is searched for


def validate(path: Path) -> Job:
    """Reads a job's YAML.

    Args:
        path: of the file, to which the paths in it are relative.

    Raises:
        InputError: with the first problem.
    """
    text = path.read_text(encoding="utf-8")
    if problem := next(problems(yaml.safe_load(text), path.parent), None) or leaked_secret(text):
        raise InputError(f"{path.name}: {problem}")
    try:
        job = load_job(path)
        with connect(NOWHERE) as client:
            result = client.jobs.validate(job)
    except (ValidationError, ValidationException) as error:
        raise InputError(f"{path.name}: {innermost(str(error))}") from error
    if not result.passed:
        key, message = next(iter(result.error_messages.items()))
        raise InputError(f"{path.name}: {key}: {message}")
    return job


def problems(job: dict[str, Any], folder: Path) -> Iterator[str]:
    """Problems that Azure ML would only report after the upload, or a node after its start."""
    if not str(job.get("compute") or "").removeprefix("azureml:"):
        yield "compute: is missing, and Azure ML would choose a machine by itself"
    for kind, name in BOUND.findall(str(job.get("command", ""))):
        if name not in job.get(kind, {}):
            yield f"command: ${{{{{kind}.{name}}}}} is not among the {kind}"
    if not any((folder / str(job.get("code"))).glob("*")):
        yield f"code: {job.get('code')} is not a folder with files"
    environment = job.get("environment")
    if isinstance(environment, dict):
        yield from missing_files(environment, folder)
    for name, fields in job.get("inputs", {}).items():
        path = str(fields.get("path") or "") if isinstance(fields, dict) else ":"
        if not path or (":" not in path and not (folder / path).exists()):
            yield f"inputs.{name}.path: {path or '(empty)'} is neither a file nor an address such as azureml://datastores/NAME/paths/PATH"


def missing_files(environment: dict[str, Any], folder: Path) -> Iterator[str]:
    build = environment.get("build", {})
    dockerfile = Path(build.get("path", "")) / build.get("dockerfile_path", "Dockerfile")
    if build and not (folder / dockerfile).is_file():
        yield f"environment.build: no {dockerfile}"
    conda_file = environment.get("conda_file")
    if isinstance(conda_file, str) and not (folder / conda_file).is_file():
        yield f"environment.conda_file: {conda_file} not found"


def leaked_secret(text: str) -> str | None:
    """A secret of this process's environment in a text that Azure ML shows to everyone who can see the job."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= SHORTEST and value in text:
            return f"contains the value of {name}, which everyone who sees the job could read; use a Key Vault"
    return None


def innermost(message: str) -> str:
    """The keys and messages in an error of the SDK, which wraps JSON in JSON and adds help."""
    match = re.search(r"Validation for CommandJobSchema failed:\s*(\{.*\})\s*If you", nested(message), flags=re.DOTALL)
    errors = json.loads(match[1]) if match else None
    return "; ".join(flat(errors)) if errors else nested(message).strip().splitlines()[0]


def nested(message: str) -> str:
    """The message within the SDK's first layer of JSON."""
    start, end = message.find("{"), message.rfind("}")
    try:
        return str(json.loads(message[start : end + 1])["errors"][0]["message"])
    except (ValueError, LookupError):
        return message


def flat(errors: Any, key: str = "") -> Iterator[str]:
    """Nested messages as lines of `key: message`."""
    if isinstance(errors, dict):
        for name, inner in errors.items():
            yield from flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(errors, list):
        for inner in errors:
            yield from flat(inner, key)
    else:
        yield f"{key}: {errors}"
