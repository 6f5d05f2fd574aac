"""The job as Azure ML's YAML: the inputs of a node, its command and its outputs."""

import secrets
import shlex
import time
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tools.azure.submit import image
from tools.azure.submit.project import UNPACK, Remote, write_snapshot
from tools.azure.submit.settings import Input, Job
from tunepress.core.environment import IMAGE

SCHEMA = "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json"
FILE = "job.yaml"
CODE = "code"
RESULTS = "results"  # the output that tools.azure.fetch downloads


def new_name(experiment: str | None) -> str:
    """A name for the job and its experiment, unique in the workspace."""
    return f"{experiment or 'default'}-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def write(job: Job, remote: Remote, parameters: list[str], name: str, folder: Path) -> str:
    """Writes the job's YAML, its code and the files of its environment.

    Args:
        job: the settings.
        remote: for the results.
        parameters: as in `dvc exp run -S`.
        name: of the job.
        folder: to write to.

    Returns:
        The commit that the job runs.

    Raises:
        InputError: a file has changed since the commit, or one that the settings name does not exist.
    """
    commit = write_snapshot(Path(), folder / CODE)
    document: dict[str, Any] = {
        "$schema": SCHEMA,
        "type": "command",
        "name": name,
        "experiment_name": job.experiment_name,
        "description": f"Tunepress at {commit}",
        "code": CODE,
        "command": command(job, remote, parameters, name),
        "environment": image.describe(job.environment, folder),
        "inputs": {name: input_fields(settings) for name, settings in job.inputs.items()},
        "outputs": {RESULTS: {"type": "uri_folder", "mode": "upload"}},
        "environment_variables": {IMAGE: job.environment.image} if "@sha256:" in (job.environment.image or "") else {},
        "compute": f"azureml:{job.compute}",
        "identity": {"type": "managed"} | ({"client_id": job.client_id} if job.client_id else {}),
        "resources": {"instance_count": job.instance_count} | ({"instance_type": job.instance_type} if job.instance_type else {}),
    }
    if job.instance_count > 1:
        # One process per node: the train stage's torchrun starts one for each GPU.
        document["distribution"] = {"type": "pytorch", "process_count_per_instance": 1}
    fields = {key: value for key, value in document.items() if value != {}}
    image.write(folder / FILE, yaml.safe_dump(fields, sort_keys=False, width=10_000))
    return commit


def input_fields(settings: Input) -> dict[str, Any]:
    """The fields of an input in the YAML, to which a path would be relative."""
    path = settings.path if ":" in settings.path else str(Path(settings.path).resolve())
    return {"type": settings.type, "path": path, "mode": settings.mode}


def command(job: Job, remote: Remote, parameters: list[str], name: str) -> str:
    words = ["--name", name, "--lock", job.environment.lock]
    words += [word for parameter in parameters for word in ("-S", parameter)]
    words += ["--remote", remote.name, *(f"{key}={value}" for key, value in remote.options.items())]
    words += ["--keyvault-name", job.keyvault_name] if job.hf_token and job.keyvault_name else []
    words += ["--client-id", job.client_id] if job.client_id else []
    # Azure ML inserts the folders before a shell reads the command.
    paths = [f"--input ${{{{inputs.{name}}}}} {shlex.quote(settings.place)}" for name, settings in job.inputs.items()]
    paths += [f"--results ${{{{outputs.{RESULTS}}}}}"]
    return " ".join([f"{UNPACK} && exec python -m tools.azure.node", shlex.join(words), *paths])
