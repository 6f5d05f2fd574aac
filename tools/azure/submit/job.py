"""The job as Azure ML's YAML: what a node gets, what it runs, and what it gives back."""

import secrets
import shlex
import time
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tools.azure.submit import image, snapshot
from tools.azure.submit.remote import Remote
from tools.azure.submit.settings import Input, Job
from tunepress.core.environment import IMAGE

SCHEMA = "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json"
FILE = "job.yaml"
CODE = "code"
RESULTS = "results"  # the output that tools.azure.fetch asks for


def new_name(experiment: str | None) -> str:
    """A name for the job and for the experiment that it becomes, of a workspace that may have many."""
    return f"{experiment or 'default'}-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def write(job: Job, remote: Remote, parameters: list[str], name: str, folder: Path) -> str:
    """Writes the job's YAML, and beside it its code and what its environment is made of.

    Args:
        job: the settings.
        remote: where the results go.
        parameters: as `dvc exp run -S` takes them.
        name: of the job.
        folder: to write to.

    Returns:
        The commit that it runs.

    Raises:
        InputError: a file has changed since the commit, or one that is named is not there.
    """
    commit = snapshot.write(Path(), folder / CODE)
    document: dict[str, Any] = {
        "$schema": SCHEMA,
        "type": "command",
        "name": name,
        "experiment_name": job.experiment_name,
        "description": f"Tunepress at {commit}",
        "code": CODE,
        "command": command(job, remote, parameters, name),
        "environment": image.describe(job.environment, folder),
        "inputs": {name: described(given) for name, given in job.inputs.items()},
        "outputs": {RESULTS: {"type": "uri_folder", "mode": "upload"}},
        "environment_variables": {IMAGE: job.environment.image} if "@sha256:" in (job.environment.image or "") else {},
        "compute": f"azureml:{job.compute}",
        "identity": {"type": "managed"} | ({"client_id": job.client_id} if job.client_id else {}),
        "resources": {"instance_count": job.instance_count} | ({"instance_type": job.instance_type} if job.instance_type else {}),
    }
    if job.instance_count > 1:
        # One process a node: the train stage's torchrun starts one for each GPU.
        document["distribution"] = {"type": "pytorch", "process_count_per_instance": 1}
    given = {key: value for key, value in document.items() if value != {}}
    image.write(folder / FILE, yaml.safe_dump(given, sort_keys=False, width=10_000))
    return commit


def described(given: Input) -> dict[str, Any]:
    """An input as the YAML has it, where a path would be one beside it."""
    path = given.path if ":" in given.path else str(Path(given.path).resolve())
    return {"type": given.type, "path": path, "mode": given.mode}


def command(job: Job, remote: Remote, parameters: list[str], name: str) -> str:
    """What a node runs."""
    words = ["--name", name, "--lock", job.environment.lock]
    words += [word for parameter in parameters for word in ("-S", parameter)]
    words += ["--remote", remote.name, *(f"{key}={value}" for key, value in remote.options.items())]
    words += ["--keyvault-name", job.keyvault_name] if job.hf_token and job.keyvault_name else []
    words += ["--client-id", job.client_id] if job.client_id else []
    # Azure ML puts the folders in before a shell reads the command.
    bound = [f"--input ${{{{inputs.{name}}}}} {shlex.quote(given.place)}" for name, given in job.inputs.items()]
    bound += [f"--results ${{{{outputs.{RESULTS}}}}}"]
    return " ".join([f"{snapshot.UNPACK} && exec python -m tools.azure.node", shlex.join(words), *bound])
