"""`input_model`: where the base model comes from."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.olive import azure
from tools.olive.base_models import base_models
from tools.olive.document import Leaf, Object, leaves, text
from tools.olive.fate import Fate, Kind, Line, Rule, only, otherwise, refused, ruled, taken, to
from tools.olive.hub import pinned
from tunepress.core.errors import InputError

TYPES = ("hfmodel", "pytorchmodel")
LOADING = {"model_loading_args": "load_kwargs", "from_pretrained_args": "load_kwargs"}  # names of one thing
HUB = "phi3_mini"  # the group of a model on the Hub, whose repository and commit are then set
CODE = "transformers' own code of the architecture is run, a repository's never"
SCRIPT = "no Python beside the configuration is run"
RULES: dict[str, Rule] = {
    "task": only("text-generation", "the only task there is", "only text is generated here"),
    "model_file_format": lambda value: azure.MLFLOW if value == "PyTorch.MLflow" else refused("weights are safetensors only"),
    "model_script": refused(SCRIPT),
    "script_dir": refused(SCRIPT),
    "io_config": otherwise("the builder knows the inputs of each architecture"),
    "dummy_inputs_func": otherwise("the builder knows the inputs of each architecture"),
    "adapter_path": refused("an adapter is trained here, none is brought"),
    "load_kwargs.trust_remote_code": otherwise(CODE),
    "load_kwargs._attn_implementation": to("train.attn_implementation"),
    "load_kwargs.attn_implementation": to("train.attn_implementation"),
    "load_kwargs.torch_dtype": otherwise("train.bf16 says it"),
    "load_kwargs.device_map": otherwise("train.num_processes and train.fsdp spread a model"),
    "load_kwargs.use_safetensors": otherwise("weights are safetensors only"),
    "load_kwargs.revision": otherwise("base_model.revision is the commit it stands for"),
}


def lines(input_model: Object, folder: Path) -> list[Line]:
    """The fate of each field of `input_model`.

    Args:
        input_model: that section.
        folder: of the configuration, from which its paths start.

    Raises:
        InputError: a type of model that is not known here, or a model that is not there.
    """
    fields = [renamed(leaf) for leaf in leaves(input_model, "input_model")]
    flat = {leaf.name: leaf.value for leaf in fields}
    kind = str(flat.get("type", "HfModel"))
    if kind.lower() not in TYPES:
        raise InputError(f"input_model.type: {kind} cannot be fine-tuned here; HfModel and PyTorchModel can")
    rules = RULES | {"type": otherwise("Hugging Face's layout is the only one")} | places(flat, folder)
    return ruled(fields, rules, "the model's own config.json is taken as it is")


def renamed(leaf: Leaf) -> Leaf:
    """A field by the name that today's Olive has for it."""
    first, dot, rest = leaf.name.partition(".")
    return Leaf(leaf.path, LOADING.get(first, first) + dot + rest, leaf.value)


def places(flat: Mapping[str, Any], folder: Path) -> dict[str, Rule]:
    """The rules of the fields that say where the model is."""
    if "model_path.type" in flat:
        return resource(flat, folder)
    where = "model_path" if flat.get("model_path") else "model_name"
    if not isinstance(flat.get(where), str):
        raise InputError("input_model: names no model; set model_path, or hf_config.model_name in a PyTorchModel")
    rules: dict[str, Rule] = {where: located(flat[where], flat, folder, f"input_model: {where}")}
    if where == "model_path":
        rules["model_name"] = to("base_model.name")
    return rules


def resource(flat: Mapping[str, Any], folder: Path) -> dict[str, Rule]:
    """The rules where `model_path` is an object of Olive's, with a type."""
    kind = text(flat["model_path.type"], "input_model.model_path.type")
    if kind in azure.MODELS:
        return azure.model_rules(flat)
    field = {"local_folder": "model_path.path", "string_name": "model_path.name"}.get(kind or "")
    if field is None or not isinstance(flat.get(field), str):
        known = ", ".join(("local_folder", "string_name", *azure.MODELS))
        raise InputError(f"input_model.model_path.type: {kind} is none of {known}, or names nothing")
    here = otherwise("a folder is told from a name by looking")
    name = to("base_model.name")
    return {"model_path.type": here, field: located(flat[field], flat, folder, f"input_model: {field}"), "model_name": name}


def located(place: str, flat: Mapping[str, Any], folder: Path, field: str) -> Fate:
    """A folder of this machine, a model in Azure, or one on the Hub."""
    if place.startswith("azureml:"):
        return azure.model_at(place)
    if (folder / place).is_dir():
        path = os.path.relpath(folder / place)
        values = {"/base_model": "folder", "base_model.path": path, "base_model.name": Path(path).resolve().name}
        return Fate(Kind.taken, f"base_model=folder, base_model.path={path}", values)
    repo_id = re.sub(r"^(hf://|https://huggingface\.co/)", "", place)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+|[\w-]+", repo_id):
        raise InputError(f"{field}: no folder {folder / place}; bring the model there, or name one of the Hub")
    return on_hub(repo_id, text(flat.get("load_kwargs.revision"), "input_model: load_kwargs.revision"), field)


def on_hub(repo_id: str, revision: str | None, field: str) -> Fate:
    """A model on the Hub, at the commit that the configuration names, or conf/ knows, or the Hub tells."""
    for name, known in base_models().items():
        if known.get("repo_id") == repo_id and revision in (None, known.get("revision")):
            return taken("/base_model", name)
        if known.get("repo_id") == repo_id:
            commit, _ = pinned(repo_id, revision, field)
            values = {"/base_model": name, "base_model.revision": commit}
            return Fate(Kind.taken, f"base_model={name}, base_model.revision={commit}", values)
    commit, license = pinned(repo_id, revision, field)
    values = {"/base_model": HUB, "base_model.name": repo_id.rpartition("/")[2], "base_model.license": license}
    values |= {"base_model.repo_id": repo_id, "base_model.revision": commit}
    return Fate(Kind.taken, f"base_model.repo_id={repo_id}, base_model.revision={commit}", values)
