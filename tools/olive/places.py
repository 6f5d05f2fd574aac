"""Where rows and models are: on this machine, in Azure (with the machines of jobs), or on the Hugging Face Hub.

Keys of jobs start with `job.`: they are settings of `make azure-submit` (conf/azure) and not part of the experiment.
"""

import glob
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tools.olive.document import Object
from tools.olive.mapping import JOB, FieldMapping, Rule, Status, Value, covered, mapped_to, maps_to, unsupported
from tunepress.core.errors import InputError, one_line
from tunepress.core.params import CONF

TIMEOUT = 15  # seconds
FOLDERS = ("cache", "checkpoints", "model", "model-cache", "model_cache", "models", "output", "outputs")  # where models often are
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+|[\w-]+")

CLIENT = ("subscription_id", "resource_group", "workspace_name")
DATASTORE = "azureml_datastore"
REGISTRY_MODEL, WORKSPACE_MODEL = MODELS = ("azureml_registry_model", "azureml_model")
ADDRESS = re.compile(r"azureml://registries/([^/]+)/models/([^/]+)/versions/([^/]+)")
STORED = re.compile(
    r"azureml://subscriptions/([^/]+)/resourcegroups/([^/]+)/workspaces/([^/]+)/datastores/([^/]+)/paths/(.+)", re.IGNORECASE
)
STORED_PARTS = (*CLIENT, "datastore_name", "relative_path")
MLFLOW = covered("fetch finds the weights in an MLflow model")
RETRIES = ("read_timeout", "max_operation_retries", "operation_retry_interval")
CREDENTIALS = unsupported("credentials come from the environment, `az login` or a managed identity")


def local(folder: Path, name: str) -> Path:
    """The place of a path in the configuration, which may be one of Windows.

    Args:
        folder: of the configuration, to which its paths are relative.
        name: the path.
    """
    path = PureWindowsPath(name)
    return folder / name if (folder / name).exists() else folder / (path.name if path.drive else path.as_posix())


def is_local(place: Path, folder: Path) -> bool:
    """Whether a model of this name is a folder, here or on another machine, and not one of the Hub."""
    return place.is_dir() or (place.parent != folder and place.parent.name.lower() in FOLDERS)


def exists(place: Path) -> bool:
    """Whether there is a file or folder, or one that matches a pattern such as data/*.jsonl."""
    return place.exists() or any(glob.iglob(str(place)))  # noqa: PTH207, pathlib takes no absolute patterns


def shown(place: Path) -> str:
    """The path relative to the working folder, as an experiment has it."""
    return os.path.relpath(place)


def absent(place: Path, content: str, key: str) -> str:
    """What to do about a file or folder that is not on this machine."""
    return f"{shown(place)}: not on this machine; put {content} there, or set {key} in the experiment"


def client_rules(field: str, section: str) -> dict[str, Rule]:
    """The rules for a workspace and its client.

    Args:
        field: that contains them.
        section: of the keys of this project, with its dot.
    """
    rules: dict[str, Rule] = {f"{field}.{name}": maps_to(f"{section}{name}") for name in CLIENT}
    rules |= {f"{field}.{name}": covered("the SDK's default") for name in RETRIES}
    rules[f"{field}.aml_config_path"] = covered("a config.json in the project or in .azureml names the workspace")
    rules[f"{field}.keyvault_name"] = maps_to(f"{JOB}keyvault_name") if section == JOB else CREDENTIALS
    return rules | {f"{field}.default_auth_params": CREDENTIALS}


def is_machine(kind: str) -> bool:
    """Whether a type of system, in lower case, is of Azure ML; older versions of Olive have several."""
    return kind == "azureml" or re.fullmatch(r"azuren[a-z]\w*system", kind) is not None


def machine_rules(name: str) -> dict[str, Rule]:
    """The rules for a system of Azure ML.

    Args:
        name: of the system; only the name tells Kubernetes on Azure Arc from others.
    """
    arc = FieldMapping(Status.mapped, "`make azure-submit`, azure_arc=true", {f"{JOB}azure_arc": True})
    return client_rules("azureml_client_config", JOB) | {
        "type": arc if "arc" in name else covered("`make azure-submit`"),
        "aml_compute": maps_to(f"{JOB}compute"),
        "accelerators": lock,
        "accelerators.device": lock,
        "accelerators.execution_providers": covered("the target determines what a model is built for"),
        "instance_count": maps_to(f"{JOB}instance_count"),
        "hf_token": maps_to(f"{JOB}hf_token"),
        "aml_docker_config.base_image": maps_to(f"{JOB}environment.image"),
        "aml_docker_config.conda_file_path": FieldMapping(
            Status.covered,
            "environment.conda_file=lock: the packages of requirements/ are added to the image",
            {f"{JOB}environment.conda_file": "lock"},
        ),
        "aml_docker_config.dockerfile": maps_to(f"{JOB}environment.dockerfile_path"),
        "aml_docker_config.build_context_path": maps_to(f"{JOB}environment.build"),
        "is_dev": covered("the checked-out commit runs"),
        "olive_managed_env": covered("the environment is built from requirements/"),
        "requirements_file": covered("the environment is built from requirements/"),
    }


def lock(value: Any) -> FieldMapping:
    """The rule for the devices of a machine."""
    devices = {str(device).lower() for device in (value if isinstance(value, list) else [value])}
    if not devices <= {"cpu", "gpu"}:
        return unsupported("environment.lock must be cpu, or cuda13 or cuda12 for a GPU")
    return mapped_to(f"{JOB}environment.lock", "cuda13" if "gpu" in devices else "cpu")


def row_rules() -> dict[str, Rule]:
    """The rules for `data_files` in a datastore."""
    return client_rules("data_files.azureml_client", "data.datastore.") | {
        "data_files.type": mapped_to("/data", "azureml_datastore"),
        "data_files.datastore_name": maps_to("data.datastore.datastore_name"),
        "data_files.relative_path": maps_to("data.datastore.relative_path"),
        "data_files.datastore_url": datastore_path,
    }


def shared_workspace(document: Object, keys: set[str]) -> list[Value]:
    """The workspace of the whole configuration, for rows and a model in Azure that name none.

    Args:
        document: the configuration.
        keys: that have a value of their own.
    """
    client = document.get("azureml_client") or {}
    in_workspace = "base_model.version" in keys and "base_model.registry_name" not in keys
    sections = ["data.datastore."] * ("data.datastore.relative_path" in keys) + ["base_model."] * in_workspace
    names = {f"{section}{name}": name for section in sections for name in CLIENT if name in client}
    return [Value(key, client[name], f"azureml_client.{name}") for key, name in names.items() if key not in keys]


def datastore_path(url: Any) -> FieldMapping:
    """The rule for a URL of a file in a datastore.

    Raises:
        InputError: it is not one.
    """
    match = STORED.fullmatch(str(url))
    if not match:
        raise InputError(f"datastore_url: must be azureml://subscriptions/.../datastores/.../paths/..., got {url!r}")
    values = {f"data.datastore.{part}": value for part, value in zip(STORED_PARTS, match.groups(), strict=True)}
    return FieldMapping(Status.mapped, "data.datastore", values)


def model_rules(flat: Mapping[str, Any]) -> dict[str, Rule]:
    """The rules for a `model_path` in a registry or a workspace."""
    registry = flat.get("model_path.registry_name") if flat["model_path.type"] == REGISTRY_MODEL else None
    model = map_model(flat.get("model_path.name"), flat.get("model_path.version"), registry)
    return client_rules("model_path.azureml_client", "base_model.") | {
        "model_path.type": mapped_to("/base_model", model.values["/base_model"]),
        "model_path.name": maps_to("base_model.name"),
        "model_path.version": lambda value: mapped_to("base_model.version", str(value)),
        "model_path.registry_name": maps_to("base_model.registry_name"),
        "model_name": covered("the model in Azure includes the tokenizer"),
    }


def model_at(address: str) -> FieldMapping:
    """Maps the address of a model in a registry.

    Raises:
        InputError: it is not one, or has no version.
    """
    match = ADDRESS.fullmatch(address)
    if not match:
        raise InputError(f"input_model: must be azureml://registries/NAME/models/MODEL/versions/VERSION, got {address}")
    registry, name, version = match.groups()
    return map_model(name, version, registry)


def map_model(name: Any, version: Any, registry: str | None) -> FieldMapping:
    """Maps a model to the group of conf/base_model that has it, or to the one for any model in Azure.

    Raises:
        InputError: name or version are missing.
    """
    if not name or not version:
        raise InputError(
            "input_model.model_path: a model in Azure needs name and version; without a version, the newest would be used"
        )
    same = {"source": "azureml", "name": name, "version": str(version), "registry_name": registry}
    known = next((stem for stem, group in base_models().items() if all(group.get(key) == same[key] for key in same)), None)
    group = known or "azureml"
    values = {"/base_model": group} | {f"base_model.{key}": same[key] for key in same if key != "source" and same[key]}
    return FieldMapping(Status.mapped, f"base_model.source=azureml, base_model.name={name}, base_model.version={version}", values)


def pinned(repo_id: str, revision: str | None, field: str, dataset: bool = False) -> tuple[str, str]:
    """Returns the commit and the license of a model or a dataset.

    Args:
        repo_id: its name on the Hub.
        revision: a commit, which is returned as it is, a branch or a tag; None for the main branch.
        field: of the configuration that names it, for the error.
        dataset: whether it is a dataset.

    Raises:
        InputError: the Hub does not answer.
    """
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision, "other"
    from huggingface_hub import HfApi  # a second

    get_info: Callable[..., Any] = HfApi().dataset_info if dataset else HfApi().model_info
    try:
        info = get_info(repo_id, revision=revision, timeout=TIMEOUT)
    except Exception as error:  # the hub's client raises errors of httpx, huggingface_hub and the operating system
        cure = f'set the commit as "revision"{"" if dataset else " in load_kwargs"}'
        raise InputError(f"{field}: cannot look up the commit of {repo_id} on the Hub ({one_line(error)}); {cure}") from error
    return str(info.sha), getattr(info.card_data, "license", None) or "other"


def base_models() -> dict[str, DictConfig]:
    """The groups of conf/base_model by name."""
    files = sorted((CONF / "base_model").glob("*.yaml"))
    return {file.stem: DictConfig(OmegaConf.load(file)) for file in files}
