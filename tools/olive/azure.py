"""What a configuration has in Azure: rows in a datastore, models of a registry or workspace, and machines for jobs.

The only place that knows what their keys are called here. Those of jobs begin with `job.`: they are settings of
`make azure-submit` (conf/azure) and no part of the experiment.
"""

import re
from collections.abc import Mapping
from typing import Any

from tools.olive.base_models import base_models
from tools.olive.document import Object
from tools.olive.fate import JOB, Fate, Kind, Rule, Value, otherwise, refused, taken, to
from tunepress.core.errors import InputError

CLIENT = ("subscription_id", "resource_group", "workspace_name")
DATASTORE = "azureml_datastore"
REGISTRY_MODEL, WORKSPACE_MODEL = MODELS = ("azureml_registry_model", "azureml_model")
ADDRESS = re.compile(r"azureml://registries/([^/]+)/models/([^/]+)/versions/([^/]+)")
STORED = re.compile(
    r"azureml://subscriptions/([^/]+)/resourcegroups/([^/]+)/workspaces/([^/]+)/datastores/([^/]+)/paths/(.+)", re.IGNORECASE
)
STORED_PARTS = (*CLIENT, "datastore_name", "relative_path")
MLFLOW = otherwise("fetch finds the weights in an MLflow model by itself")
RETRIES = ("read_timeout", "max_operation_retries", "operation_retry_interval")
CREDENTIALS = refused("credentials come from the environment, `az login` or a managed identity")


def client_rules(field: str, section: str) -> dict[str, Rule]:
    """The rules of a workspace and how it is reached.

    Args:
        field: that holds them.
        section: of the keys here, with its dot.
    """
    rules: dict[str, Rule] = {f"{field}.{name}": to(f"{section}{name}") for name in CLIENT}
    rules |= {f"{field}.{name}": otherwise("the SDK's own number") for name in RETRIES}
    rules[f"{field}.aml_config_path"] = otherwise("a config.json here or in .azureml names the workspace")
    rules[f"{field}.keyvault_name"] = to(f"{JOB}keyvault_name") if section == JOB else CREDENTIALS
    return rules | {f"{field}.default_auth_params": CREDENTIALS}


def is_machine(kind: str) -> bool:
    """Whether a system, by its type in small letters, is one of Azure ML; the older generation has several names."""
    return kind == "azureml" or re.fullmatch(r"azuren[a-z]\w*system", kind) is not None


def machine_rules(name: str) -> dict[str, Rule]:
    """The rules of a system of Azure ML.

    Args:
        name: of the system; that of Kubernetes by Azure Arc is in no other field.
    """
    job = otherwise("`make azure-submit`")
    return client_rules("azureml_client_config", JOB) | {
        "type": Fate(Kind.taken, "`make azure-submit`, azure_arc=true", {f"{JOB}azure_arc": True}) if "arc" in name else job,
        "aml_compute": to(f"{JOB}compute"),
        "accelerators": lock,
        "accelerators.device": lock,
        "accelerators.execution_providers": otherwise("the target says what a model is built for"),
        "instance_count": to(f"{JOB}instance_count"),
        "hf_token": to(f"{JOB}hf_token"),
        "aml_docker_config.base_image": to(f"{JOB}environment.image"),
        "aml_docker_config.conda_file_path": Fate(
            Kind.otherwise,
            "environment.conda_file=lock: the packages of requirements/ are put on the image",
            {f"{JOB}environment.conda_file": "lock"},
        ),
        "aml_docker_config.dockerfile": to(f"{JOB}environment.dockerfile_path"),
        "aml_docker_config.build_context_path": to(f"{JOB}environment.build"),
        "is_dev": otherwise("the commit that is checked out runs"),
        "olive_managed_env": otherwise("the environment is made of requirements/"),
        "requirements_file": otherwise("the environment is made of requirements/"),
    }


def lock(value: Any) -> Fate:
    """The rule of the devices of a machine."""
    devices = {str(device).lower() for device in (value if isinstance(value, list) else [value])}
    if not devices <= {"cpu", "gpu"}:
        return refused("environment.lock is cpu, or cuda13 or cuda12 for a GPU")
    return taken(f"{JOB}environment.lock", "cuda13" if "gpu" in devices else "cpu")


def row_rules() -> dict[str, Rule]:
    """The rules of `data_files` in a datastore."""
    return client_rules("data_files.azureml_client", "data.datastore.") | {
        "data_files.type": taken("/data", "azureml_datastore"),
        "data_files.datastore_name": to("data.datastore.datastore_name"),
        "data_files.relative_path": to("data.datastore.relative_path"),
        "data_files.datastore_url": stored,
    }


def shared_workspace(document: Object, given: set[str]) -> list[Value]:
    """The workspace of the whole configuration, for rows in a datastore and a model that name none.

    Args:
        document: the configuration.
        given: the keys that have a value of their own.
    """
    client = document.get("azureml_client") or {}
    in_workspace = "base_model.version" in given and "base_model.registry_name" not in given
    sections = ["data.datastore."] * ("data.datastore.relative_path" in given) + ["base_model."] * in_workspace
    keys = {f"{section}{name}": name for section in sections for name in CLIENT if name in client}
    return [Value(key, client[name], f"azureml_client.{name}") for key, name in keys.items() if key not in given]


def stored(url: Any) -> Fate:
    """The rule of a file's address in a datastore.

    Raises:
        InputError: it is none.
    """
    match = STORED.fullmatch(str(url))
    if not match:
        raise InputError(f"datastore_url: {url!r} is no azureml://subscriptions/.../datastores/.../paths/...")
    values = {f"data.datastore.{part}": value for part, value in zip(STORED_PARTS, match.groups(), strict=True)}
    return Fate(Kind.taken, "data.datastore", values)


def model_rules(flat: Mapping[str, Any]) -> dict[str, Rule]:
    """The rules of a `model_path` in a registry or a workspace."""
    registry = flat.get("model_path.registry_name") if flat["model_path.type"] == REGISTRY_MODEL else None
    model = named(flat.get("model_path.name"), flat.get("model_path.version"), registry)
    return client_rules("model_path.azureml_client", "base_model.") | {
        "model_path.type": taken("/base_model", model.values["/base_model"]),
        "model_path.name": to("base_model.name"),
        "model_path.version": lambda value: taken("base_model.version", str(value)),
        "model_path.registry_name": to("base_model.registry_name"),
        "model_name": otherwise("the model in Azure has the tokenizer too"),
    }


def model_at(place: str) -> Fate:
    """What becomes of a model's address in a registry.

    Raises:
        InputError: it is none, or one without a version.
    """
    match = ADDRESS.fullmatch(place)
    if not match:
        raise InputError(f"input_model: {place} is no azureml://registries/NAME/models/MODEL/versions/VERSION")
    registry, name, version = match.groups()
    return named(name, version, registry)


def named(name: Any, version: Any, registry: str | None) -> Fate:
    """A model by its name: the group of conf/base_model that has it, or that of any model in Azure.

    Raises:
        InputError: no name or no version, without which a later model would come.
    """
    if not name or not version:
        raise InputError("input_model.model_path: a model in Azure wants name and version; without, a later one would come")
    same = {"source": "azureml", "name": name, "version": str(version), "registry_name": registry}
    known = next((stem for stem, one in base_models().items() if all(one.get(key) == same[key] for key in same)), None)
    group = known or "azureml"
    values = {"/base_model": group} | {f"base_model.{key}": same[key] for key in same if key != "source" and same[key]}
    return Fate(Kind.taken, f"base_model.source=azureml, base_model.name={name}, base_model.version={version}", values)
