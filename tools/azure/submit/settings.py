"""conf/azure/default.yaml and the command line, as typed settings of a job."""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from tunepress.core.errors import InputError, one_line
from tunepress.core.params import CONF, typed

FILE = CONF / "azure/default.yaml"
DOCKER = "docker"  # of environment.build
LOCK = "lock"  # of environment.conda_file
MODES = ("ro_mount", "download")
TYPES = ("uri_file", "uri_folder", "mltable", "mlflow_model", "custom_model")


@dataclass
class Environment:
    """What a node has installed, in the words of Azure ML's environments."""

    lock: str
    build: str
    dockerfile_path: str
    image: str | None
    conda_file: str | None


@dataclass
class Input:
    """Something that Azure ML brings to the nodes; `place` is where the project finds it."""

    path: str
    place: str
    type: str = "uri_file"
    mode: str = "ro_mount"


@dataclass
class Job:
    """All settings of a job."""

    subscription_id: str | None
    resource_group: str | None
    workspace_name: str | None
    compute: str | None
    azure_arc: bool
    instance_type: str | None
    instance_count: int
    client_id: str | None
    experiment_name: str
    environment: Environment
    hf_token: bool
    keyvault_name: str | None
    inputs: dict[str, Input] = field(default_factory=dict)
    cancel_on_interrupt: bool = False


@dataclass
class Config:
    """One section, so that a wrong key is told as azure.compte."""

    azure: Job


def load(overrides: list[str]) -> Job:
    """Reads the settings.

    Args:
        overrides: such as `compute=gpu-cluster`, in Hydra's grammar.

    Raises:
        InputError: a key that there is not, a wrong type, or settings that do not go together.
    """
    config = cast(DictConfig, OmegaConf.load(FILE))
    try:
        for given in OverridesParser.create().parse_overrides(overrides):
            if given.is_sweep_override():
                raise InputError(
                    f"{FILE}: azure.{given.key_or_group}: {given.get_value_string()} is a sweep, and a job has one value"
                )
            OmegaConf.update(config, given.key_or_group, given.value(), force_add=True)
    except HydraException as error:
        raise InputError(f"{FILE}: {one_line(error)}") from error
    job = typed(Config, OmegaConf.create({"azure": config}), str(FILE)).azure
    if wrong := refusal(job):
        raise InputError(f"{FILE}: azure.{wrong}")
    return job


def refusal(job: Job) -> str | None:
    """What does not go together in the settings, as a key and what to do; None if all does."""
    if not job.compute:
        return "compute: none is named; name a cluster of the workspace, compute=..."
    if job.instance_count < 1:
        return f"instance_count: {job.instance_count} nodes; 1 is the least"
    if job.azure_arc and not job.instance_type:
        return "instance_type: Kubernetes gives its smallest nodes where none is named; `kubectl get instancetype` lists them"
    if job.instance_type and not job.azure_arc:
        return "instance_type: only Kubernetes has them, where azure_arc=true; the nodes of a cluster are all of its size"
    if job.hf_token and not job.keyvault_name:
        return "keyvault_name: hf_token is true, and the token is read from a Key Vault; name it"
    if job.environment.conda_file and not job.environment.image:
        return "environment.image: conda_file needs an image to be put on"
    locks = sorted(path.stem for path in (CONF / "environment").glob("*.yaml"))
    if job.environment.lock not in locks:
        return f"environment.lock: {job.environment.lock} is none of {', '.join(locks)}"
    return next(filter(None, (refusal_of(name, given) for name, given in job.inputs.items())), None) or shared_place(job.inputs)


def refusal_of(name: str, given: Input) -> str | None:
    """What is wrong with an input; None if nothing is."""
    if not name.isidentifier():
        return f"inputs: {name} is no name for an input; take letters, digits and _"
    for key, value, known in (("type", given.type, TYPES), ("mode", given.mode, MODES)):
        if value not in known:
            return f"inputs.{name}.{key}: {value} is none of {', '.join(known)}"
    place = PurePosixPath(given.place)
    if place.is_absolute() or ".." in place.parts:
        return f"inputs.{name}.place: {given.place} is not in the project; give a path relative to its root"
    if Path(given.place).exists():
        return f"inputs.{name}.place: the project has a file {given.place}; choose another place"
    return None


def shared_place(inputs: dict[str, Input]) -> str | None:
    """Which input would lie where another one does; None if each has a place of its own."""
    taken: dict[PurePosixPath, str] = {}
    for name, given in inputs.items():
        other = taken.setdefault(PurePosixPath(given.place), name)
        if other != name:
            return f"inputs.{name}.place: {given.place} is the place of inputs.{other} too; choose another place"
    return None
