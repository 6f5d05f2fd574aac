"""Checks of a job's YAML without a network: Azure ML's schema, and what it lets pass."""

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

NOWHERE = Workspace("none", "none", "none")  # the client wants one, and asks it nothing to validate a job
BOUND = re.compile(r"\$\{\{\s*(inputs|outputs)\.(\w+)\s*\}\}")
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|(?:^|_)KEY$|CONNECTION_STRING|SAS")  # in a variable's name
SHORTEST = 8  # characters of a secret that is looked for


def validate(path: Path) -> Job:
    """Reads a job's YAML.

    Args:
        path: of the file; what it names is looked for beside it.

    Raises:
        InputError: the first thing that is wrong.
    """
    text = path.read_text(encoding="utf-8")
    if wrong := next(problems(yaml.safe_load(text), path.parent), None) or secret(text):
        raise InputError(f"{path.name}: {wrong}")
    try:
        job = load_job(path)
        with connect(NOWHERE) as client:
            result = client.jobs.validate(job)
    except (ValidationError, ValidationException) as error:
        raise InputError(f"{path.name}: {innermost(str(error))}") from error
    if not result.passed:
        key, said = next(iter(result.error_messages.items()))
        raise InputError(f"{path.name}: {key}: {said}")
    return job


def problems(job: dict[str, Any], folder: Path) -> Iterator[str]:
    """What Azure ML would find after an upload and a wait, or a node after it has started."""
    if not str(job.get("compute") or "").removeprefix("azureml:"):
        yield "compute: none is named, and without one Azure ML takes a machine of its own choice"
    for kind, name in BOUND.findall(str(job.get("command", ""))):
        if name not in job.get(kind, {}):
            yield f"command: ${{{{{kind}.{name}}}}} is not among the {kind}"
    if not any((folder / str(job.get("code"))).glob("*")):
        yield f"code: {job.get('code')} is no folder with files"
    environment = job.get("environment")
    if isinstance(environment, dict):
        yield from missing(environment, folder)
    for name, given in job.get("inputs", {}).items():
        path = str(given.get("path") or "") if isinstance(given, dict) else ":"
        if not path or (":" not in path and not (folder / path).exists()):
            yield f"inputs.{name}.path: {path or 'nothing'} is no file, nor an address such as azureml://datastores/NAME/paths/PATH"


def missing(environment: dict[str, Any], folder: Path) -> Iterator[str]:
    """The files of an environment that are not there."""
    build = environment.get("build", {})
    dockerfile = Path(build.get("path", "")) / build.get("dockerfile_path", "Dockerfile")
    if build and not (folder / dockerfile).is_file():
        yield f"environment.build: no {dockerfile}"
    conda_file = environment.get("conda_file")
    if isinstance(conda_file, str) and not (folder / conda_file).is_file():
        yield f"environment.conda_file: {conda_file} not found"


def secret(text: str) -> str | None:
    """Which secret of this process's environment is in a text that Azure ML shows to all who see the job."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= SHORTEST and value in text:
            return f"it has the value of {name} in it, which all would read who see the job; a Key Vault is for secrets"
    return None


def innermost(said: str) -> str:
    """The keys and complaints of the SDK's error, which wraps JSON in JSON and help around it."""
    found = re.search(r"Validation for CommandJobSchema failed:\s*(\{.*\})\s*If you", nested(said), flags=re.DOTALL)
    complaints = json.loads(found[1]) if found else None
    return "; ".join(flat(complaints)) if complaints else nested(said).strip().splitlines()[0]


def nested(said: str) -> str:
    """The message within the SDK's first layer of JSON."""
    start, end = said.find("{"), said.rfind("}")
    try:
        return str(json.loads(said[start : end + 1])["errors"][0]["message"])
    except (ValueError, LookupError):
        return said


def flat(complaints: Any, key: str = "") -> Iterator[str]:
    """Nested complaints as lines of `key: complaint`."""
    if isinstance(complaints, dict):
        for name, inner in complaints.items():
            yield from flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(complaints, list):
        for inner in complaints:
            yield from flat(inner, key)
    else:
        yield f"{key}: {complaints}"
