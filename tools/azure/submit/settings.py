"""The settings of a job, from conf/azure/default.yaml and the command line."""

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
    """The environment of a node, in the terms of Azure ML."""

    lock: str
    build: str
    dockerfile_path: str
    image: str | None
    conda_file: str | None


@dataclass
class Input:
    """Data that Azure ML provides to the nodes; `place` is its path in the project."""

    path: str
    place: str
    type: str = "uri_file"
    mode: str = "ro_mount"


@dataclass
class Job:
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
    """One group, so that a misspelled key is reported as azure.compte."""

    azure: Job


def load(overrides: list[str]) -> Job:
    """Reads and checks the settings.

    Args:
        overrides: such as `compute=gpu-cluster`, in Hydra's grammar.

    Raises:
        InputError: an unknown key, a wrong type, or settings that contradict each other.
    """
    config = cast(DictConfig, OmegaConf.load(FILE))
    try:
        for override in OverridesParser.create().parse_overrides(overrides):
            if override.is_sweep_override():
                raise InputError(
                    f"{FILE}: azure.{override.key_or_group}: {override.get_value_string()} is a sweep, and a job has one value"
                )
            OmegaConf.update(config, override.key_or_group, override.value(), force_add=True)
    except HydraException as error:
        raise InputError(f"{FILE}: {one_line(error)}") from error
    job = typed(Config, OmegaConf.create({"azure": config}), str(FILE)).azure
    if message := problem(job):
        raise InputError(f"{FILE}: azure.{message}")
    return job


def problem(job: Job) -> str | None:
    """The first problem of the settings, as a key and what to do; None if there is none."""
    if not job.compute:
        return "compute: is missing; set it to a cluster of the workspace, compute=..."
    if job.instance_count < 1:
        return f"instance_count: must be at least 1, got {job.instance_count}"
    if job.azure_arc and not job.instance_type:
        return (
            "instance_type: is missing, and Kubernetes would use its smallest nodes; `kubectl get instancetype` lists the types"
        )
    if job.instance_type and not job.azure_arc:
        return "instance_type: only applies to Kubernetes (azure_arc=true); all nodes of a cluster have the same size"
    if job.hf_token and not job.keyvault_name:
        return "keyvault_name: is missing, and hf_token=true reads the token from a Key Vault"
    if job.environment.conda_file and not job.environment.image:
        return "environment.image: is missing, and conda_file needs one"
    locks = sorted(path.stem for path in (CONF / "environment").glob("*.yaml"))
    if job.environment.lock not in locks:
        return f"environment.lock: must be one of {', '.join(locks)}, got {job.environment.lock}"
    return next(filter(None, (input_problem(name, settings) for name, settings in job.inputs.items())), None) or shared_place(
        job.inputs
    )


def input_problem(name: str, settings: Input) -> str | None:
    if not name.isidentifier():
        return f"inputs: {name} must consist of letters, digits and _"
    for key, value, known in (("type", settings.type, TYPES), ("mode", settings.mode, MODES)):
        if value not in known:
            return f"inputs.{name}.{key}: must be one of {', '.join(known)}, got {value}"
    place = PurePosixPath(settings.place)
    if place.is_absolute() or ".." in place.parts:
        return f"inputs.{name}.place: {settings.place} is not in the project; use a path relative to its root"
    if Path(settings.place).exists():
        return f"inputs.{name}.place: the project has a file {settings.place}; choose another place"
    return None


def shared_place(inputs: dict[str, Input]) -> str | None:
    """An input with the same place as another one; None if all places differ."""
    taken: dict[PurePosixPath, str] = {}
    for name, settings in inputs.items():
        other = taken.setdefault(PurePosixPath(settings.place), name)
        if other != name:
            return f"inputs.{name}.place: {settings.place} is also the place of inputs.{other}; choose another place"
    return None
