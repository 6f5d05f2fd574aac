"""A model registered in Azure ML, in a registry or a workspace: downloaded at one version, found in the layout it lies in."""

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

RECORD = "azureml.json"  # what was downloaded, beside the model's files

# Below the folder of MLmodel: weights and config, then the rest of the model's files. First what MLflow writes, then what
# Azure's own flavor hftransformersv2 does.
LAYOUTS = (("model", "components/tokenizer"), ("data/model", "data/tokenizer", "data/config"))


@dataclass(frozen=True)
class RegisteredModel:
    """One version of a model."""

    place: Workspace | Registry
    name: str
    version: str

    def __str__(self) -> str:
        """Its name, version and place."""
        return f"model {self.name}:{self.version} of {self.place}"


def registered_model(base_model: BaseModel) -> RegisteredModel:
    """The model that `base_model` names: of its registry or, where it names none, of its workspace.

    Raises:
        InputError: it names both, or a label in place of a version.
    """
    workspace = (base_model.subscription_id, base_model.resource_group, base_model.workspace_name)
    if not re.fullmatch(r"[\w.-]+", base_model.version or "") or base_model.version == "latest":
        raise InputError(f"base_model.version: {base_model.version!r} is no version, such as 11; a label can move")
    if base_model.registry_name and any(workspace):
        raise InputError("base_model.registry_name: set it or a workspace's three names, not both")
    place = Registry(base_model.registry_name) if base_model.registry_name else find_workspace(*workspace)
    return RegisteredModel(place, base_model.name, base_model.version or "")


def download_files(model: RegisteredModel, folder: Path) -> list[Path]:
    """Downloads all files of a model to `folder`.

    Returns:
        The folders below it in which the parts of a model in Hugging Face's layout lie, that with the weights last.

    Raises:
        InputError: Azure does not give the model, or its files are no such model.
    """
    print(f"downloading {model}", file=sys.stderr)  # the SDK shows no progress
    with connect(model.place) as client, azure_errors(model):
        client.models.download(model.name, version=model.version, download_path=folder)
    return parts(model, folder)


def parts(model: RegisteredModel, folder: Path) -> list[Path]:
    """The folders that hold a model's files, that with the weights last."""
    top = top_of(model, folder)
    layout = next((layout for layout in LAYOUTS if (top / layout[0]).is_dir()), (".",))
    found = [top / name for name in reversed(layout) if (top / name).is_dir()]
    if not any(found[-1].glob("*.safetensors")):
        pickles = ", ".join(sorted(file.name for file in found[-1].iterdir() if file.suffix in {".bin", ".pt", ".pth", ".pkl"}))
        wrong = f"only pickle weights ({pickles}), which can run code" if pickles else "no weights"
        raise InputError(f"{model}: {wrong}; register it with its weights as safetensors")
    return found


def top_of(model: RegisteredModel, folder: Path) -> Path:
    """The one folder that has MLmodel or, where the model is a plain folder, config.json.

    The SDK downloads all that begins like the model's path: for models/phi also models/phi-old.
    """
    known = {file.parent for name in ("MLmodel", "config.json") for file in folder.rglob(name)}
    tops = sorted(path for path in known if known.isdisjoint(path.parents))
    if not tops:
        raise InputError(f"{model}: neither MLmodel nor config.json in it, so this is no model that transformers can load")
    if len(tops) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in tops)
        raise InputError(f"{model}: several models lie at its path ({names}); register one that lies alone")
    return tops[0]


def check_whole(model: RegisteredModel, folder: Path) -> None:
    """Raises InputError where a file is cut off, or one is missing that the index of the weights names."""
    for file in sorted(folder.iterdir()):
        try:
            read(file)
        except (SafetensorError, ValueError) as error:
            raise InputError(f"{model}: {file.name} is cut off or damaged; was it uploaded whole?") from error
    index = folder / "model.safetensors.index.json"
    named = set(json.loads(index.read_bytes())["weight_map"].values()) if index.exists() else set()
    if missing := sorted(name for name in named if not (folder / name).exists()):
        raise InputError(f"{model}: {missing[0]} is missing, which {index.name} names; was it uploaded whole?")


def read(file: Path) -> None:
    """Reads what says whether all of a file is there: the header of safetensors, which has the length, or all of a JSON."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="np"):
            pass
    elif file.suffix == ".json":
        json.loads(file.read_bytes())


def record(model: RegisteredModel, folder: Path) -> None:
    """Writes beside the files of a model which one it is, and the hash of each file."""
    hashes = {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.is_file()}
    write_json(folder / RECORD, {**asdict(model.place), "name": model.name, "version": model.version, "sha256": hashes})
