"""Downloads one version of a model that is registered in Azure ML, in a registry or a workspace."""

import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tunepress.config.base_model import BaseModel
from tunepress.core.errors import InputError
from tunepress.core.files import sha256, write_json
from tunepress.remote.workspace import Registry, Workspace, azure_errors, connect, find_workspace

RECORD = "azureml.json"  # the record of what was downloaded, beside the model's files

# Below the folder of MLmodel: weights and config, then the other files of the model. First the layout of MLflow, then that of
# Azure's own flavor hftransformersv2.
LAYOUTS = (("model", "components/tokenizer"), ("data/model", "data/tokenizer", "data/config"))


@dataclass(frozen=True)
class RegisteredModel:
    place: Workspace | Registry
    name: str
    version: str

    def __str__(self) -> str:
        return f"model {self.name}:{self.version} of {self.place}"


def registered_model(base_model: BaseModel) -> RegisteredModel:
    """The model that `base_model` names, in its registry or otherwise its workspace.

    Raises:
        InputError: it names both, or a label instead of a version.
    """
    workspace = (base_model.subscription_id, base_model.resource_group, base_model.workspace_name)
    if not re.fullmatch(r"[\w.-]+", base_model.version or "") or base_model.version == "latest":
        raise InputError(
            f"base_model.version: must be a version such as 11, not a label, which can move, got {base_model.version!r}"
        )
    if base_model.registry_name and any(workspace):
        raise InputError("base_model.registry_name: set either this or the three names of a workspace, not both")
    place = Registry(base_model.registry_name) if base_model.registry_name else find_workspace(*workspace)
    return RegisteredModel(place, base_model.name, base_model.version or "")


def download_files(model: RegisteredModel, folder: Path) -> list[Path]:
    """Downloads all files of a model to `folder`.

    Returns:
        The folders below it that contain the parts of a Hugging Face model, the one with the weights last.

    Raises:
        InputError: Azure does not provide the model, or its files are not a Hugging Face model.
    """
    print(f"downloading {model}", file=sys.stderr)  # the SDK shows no progress
    with connect(model.place) as client, azure_errors(model):
        client.models.download(model.name, version=model.version, download_path=folder)
    return parts(model, folder)


def parts(model: RegisteredModel, folder: Path) -> list[Path]:
    """The folders that contain a model's files, the one with the weights last."""
    top = find_top(model, folder)
    layout = next((layout for layout in LAYOUTS if (top / layout[0]).is_dir()), (".",))
    folders = [top / name for name in reversed(layout) if (top / name).is_dir()]
    if not any(folders[-1].glob("*.safetensors")):
        pickles = ", ".join(sorted(file.name for file in folders[-1].iterdir() if file.suffix in {".bin", ".pt", ".pth", ".pkl"}))
        problem = f"only pickle weights ({pickles}), which can run code" if pickles else "no weights"
        raise InputError(f"{model}: {problem}; register it with its weights as safetensors")
    return folders


def find_top(model: RegisteredModel, folder: Path) -> Path:
    """The one folder that contains MLmodel or, for a plain model folder, config.json.

    The SDK downloads everything that starts with the model's path: for models/phi also models/phi-old.
    """
    folders = {file.parent for name in ("MLmodel", "config.json") for file in folder.rglob(name)}
    tops = sorted(path for path in folders if folders.isdisjoint(path.parents))
    if not tops:
        raise InputError(
            f"{model}: has neither MLmodel nor config.json, so transformers cannot load it; register a Hugging Face model"
        )
    if len(tops) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in tops)
        raise InputError(f"{model}: its path has several models ({names}); register one in a folder of its own")
    return tops[0]


def check_complete(model: RegisteredModel, folder: Path) -> None:
    """Raises InputError if a file is truncated, or missing although the index of the weights names it."""
    for file in sorted(folder.iterdir()):
        try:
            check_file(file)
        except (SafetensorError, ValueError) as error:
            raise InputError(f"{model}: {file.name} is truncated or damaged; upload the complete model") from error
    index = folder / "model.safetensors.index.json"
    names = set(json.loads(index.read_bytes())["weight_map"].values()) if index.exists() else set()
    if missing := sorted(name for name in names if not (folder / name).exists()):
        raise InputError(f"{model}: {index.name} names {missing[0]}, which is missing; upload the complete model")


def check_file(file: Path) -> None:
    """Reads the header of a safetensors file, which contains its length, or all of a JSON file; raises if it is truncated."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="np"):
            pass
    elif file.suffix == ".json":
        json.loads(file.read_bytes())


def record(model: RegisteredModel, folder: Path) -> None:
    """Writes the model's name and version, and the hash of each file, beside its files."""
    hashes = {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.is_file()}
    write_json(folder / RECORD, {**asdict(model.place), "name": model.name, "version": model.version, "sha256": hashes})
