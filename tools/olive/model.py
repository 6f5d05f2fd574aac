"""`input_model`: the base model."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.olive import places
from tools.olive.document import Leaf, Object, leaves, string
from tools.olive.mapping import (
    FieldMapping,
    MappedField,
    Rule,
    Status,
    covered,
    map_fields,
    mapped_to,
    maps_to,
    only,
    unsupported,
)
from tunepress.core.errors import InputError

TYPES = ("hfmodel", "pytorchmodel")
LOADING = {"model_loading_args": "load_kwargs", "from_pretrained_args": "load_kwargs"}  # names in older versions
HUB = "phi3_mini"  # a group for a model of the Hub, whose repository and commit are overridden
CODE = "only transformers' own code is run, never code of a repository"
SCRIPT = "Python code of a configuration is never run"
RULES: dict[str, Rule] = {
    "task": only("text-generation", "the only supported task", "only text generation is supported"),
    "model_file_format": lambda value: places.MLFLOW if value == "PyTorch.MLflow" else unsupported("weights must be safetensors"),
    "model_script": unsupported(SCRIPT),
    "script_dir": unsupported(SCRIPT),
    "io_config": covered("the builder knows the inputs of each architecture"),
    "dummy_inputs_func": covered("the builder knows the inputs of each architecture"),
    "generative": covered("the only supported task is text generation"),
    "adapter_path": unsupported("adapters are trained, not imported"),
    "load_kwargs.trust_remote_code": covered(CODE),
    "load_kwargs._attn_implementation": maps_to("train.attn_implementation"),
    "load_kwargs.attn_implementation": maps_to("train.attn_implementation"),
    "load_kwargs.torch_dtype": covered("see train.bf16"),
    "load_kwargs.device_map": covered("train.num_processes and train.fsdp distribute a model"),
    "load_kwargs.use_safetensors": covered("weights must be safetensors"),
    "load_kwargs.revision": covered("base_model.revision is its commit"),
}


def map_model(input_model: Object, folder: Path) -> list[MappedField]:
    """Maps the fields of `input_model`.

    Args:
        input_model: that section.
        folder: of the configuration, to which its paths are relative.

    Raises:
        InputError: an unsupported type of model, or a value that is not a model.
    """
    fields = [renamed(leaf) for leaf in leaves(input_model, "input_model")]
    flat = {leaf.name: leaf.value for leaf in fields}
    kind = str(flat.get("type", "HfModel"))
    if kind.lower() not in TYPES:
        raise InputError(f"input_model.type: must be HfModel or PyTorchModel, got {kind}, which cannot be fine-tuned")
    rules = RULES | {"type": covered("models are in Hugging Face's layout")} | location_rules(flat, folder)
    return map_fields(fields, rules, "the model's config.json is used as it is")


def renamed(leaf: Leaf) -> Leaf:
    """The field with its name in current versions of Olive."""
    first, dot, rest = leaf.name.partition(".")
    return Leaf(leaf.path, LOADING.get(first, first) + dot + rest, leaf.value)


def location_rules(flat: Mapping[str, Any], folder: Path) -> dict[str, Rule]:
    """The rules for the fields that locate the model."""
    if "model_path.type" in flat:
        return resource_rules(flat, folder)
    name = "model_path" if flat.get("model_path") else "model_name"
    if not isinstance(flat.get(name), str):
        raise InputError("input_model: has no model; set model_path, or hf_config.model_name in a PyTorchModel")
    rules: dict[str, Rule] = {name: locate(flat[name], flat, folder, f"input_model: {name}")}
    if name == "model_path":
        rules["model_name"] = maps_to("base_model.name")
    return rules


def resource_rules(flat: Mapping[str, Any], folder: Path) -> dict[str, Rule]:
    """The rules for a `model_path` that is an object with a type."""
    kind = string(flat["model_path.type"], "input_model.model_path.type")
    if kind in places.MODELS:
        return places.model_rules(flat)
    field = {"local_folder": "model_path.path", "string_name": "model_path.name"}.get(kind or "")
    if field is None or not isinstance(flat.get(field), str):
        known = ", ".join(("local_folder", "string_name", *places.MODELS))
        raise InputError(f"input_model.model_path.type: must be one of {known}, with a path or name, got {kind}")
    kind_rule = covered("detected: a folder or a name on the Hub")
    name = maps_to("base_model.name")
    return {"model_path.type": kind_rule, field: locate(flat[field], flat, folder, f"input_model: {field}"), "model_name": name}


def locate(path: str, flat: Mapping[str, Any], folder: Path, field: str) -> FieldMapping:
    """Maps a local folder, a model in Azure or a model on the Hub."""
    if path.startswith("azureml:"):
        return places.model_at(path)
    place = places.local(folder, path)
    repo_id = re.sub(r"^hf://|^https://huggingface\.co/([^/]+/[^/]+).*", r"\1", path)
    if "://" in repo_id:
        raise InputError(f"{field}: must be a folder, a name on the Hub or azureml://registries/..., got {path}")
    if not places.is_local(place, folder) and places.HUB_NAME.fullmatch(repo_id):
        revision = string(flat.get("load_kwargs.revision"), "input_model: load_kwargs.revision")
        try:
            return map_hub_model(repo_id, revision, field)
        except InputError as error:
            raise InputError(f"{error}, or put the model's folder at {places.shown(place)}") from error
    folder_path = places.shown(place)
    values = {"/base_model": "folder", "base_model.path": folder_path, "base_model.name": place.resolve().name}
    note = "" if place.is_dir() else places.absent(place, "the model's folder", "base_model.path")
    return FieldMapping(Status.mapped, f"base_model=folder, base_model.path={folder_path}", values, note)


def map_hub_model(repo_id: str, revision: str | None, field: str) -> FieldMapping:
    """Maps a model on the Hub, at the commit of the configuration, of conf/ or of the Hub's main branch."""
    for name, known in places.base_models().items():
        if known.get("repo_id") == repo_id and revision in (None, known.get("revision")):
            return mapped_to("/base_model", name)
        if known.get("repo_id") == repo_id:
            commit, _ = places.pinned(repo_id, revision, field)
            values = {"/base_model": name, "base_model.revision": commit}
            return FieldMapping(Status.mapped, f"base_model={name}, base_model.revision={commit}", values)
    commit, license = places.pinned(repo_id, revision, field)
    values = {"/base_model": HUB, "base_model.name": repo_id.rpartition("/")[2], "base_model.license": license}
    values |= {"base_model.repo_id": repo_id, "base_model.revision": commit}
    return FieldMapping(Status.mapped, f"base_model.repo_id={repo_id}, base_model.revision={commit}", values)
