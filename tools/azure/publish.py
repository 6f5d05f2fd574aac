"""Registers the int4 model in Azure ML, with its model card, metrics and recorded answers: `make azure-publish NAME=tone`.

A version is named after a hash of its files, so the same files are registered only once.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from tunepress.config.base_model import BaseModel
from tunepress.core.errors import InputError
from tunepress.core.files import read_json, sha256, size_mb
from tunepress.core.params import load
from tunepress.core.paths import CONFORMANCE, METRICS, MODEL_CARD, ONNX

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

    from stages.fetch.registered_model import RegisteredModel

SUMMARY = METRICS / "summary.json"


@dataclass
class Config:
    """What this command reads of params.yaml."""

    base_model: BaseModel


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.azure.publish", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="name of the model in Azure ML")
    parser.add_argument("--registry-name", help="publish to a registry instead of a workspace")
    for part in ("subscription-id", "resource-group", "workspace-name"):
        parser.add_argument(f"--{part}", help="of the workspace (default: from AZUREML_ARM_... or config.json)")
    arguments = parser.parse_args()
    workspace = (arguments.subscription_id, arguments.resource_group, arguments.workspace_name)
    try:
        print(f"azure-publish: {publish(arguments.name, arguments.registry_name, workspace)}")
    except InputError as error:
        sys.exit(f"azure-publish: {error}")
    except KeyboardInterrupt:
        sys.exit("azure-publish: interrupted")


def publish(name: str, registry_name: str | None, workspace: tuple[str | None, str | None, str | None]) -> str:
    """Registers models/onnx in a registry or a workspace and returns a description of the version.

    Raises:
        InputError: the run is not complete, or Azure refuses it.
    """
    from stages.fetch.registered_model import RegisteredModel  # imports Azure's packages, or raises how to install them
    from tunepress.remote.workspace import Registry, azure_errors, connect, find_workspace

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,254}", name):
        raise InputError(f"NAME={name}: must be a name of letters, digits, '-', '_' and '.'")
    require_complete_run()
    place = Registry(registry_name) if registry_name else find_workspace(*workspace)
    with publication_folder() as folder, connect(place) as client:
        hashed = content_hash(folder)
        model = RegisteredModel(place, name, hashed[:12])
        with azure_errors(model):
            if is_registered(client, model):
                return f"{model} already has these files"
            register(client, model, folder, hashed)
        return f"{model}, {size_mb(folder):.0f} MB"


def is_registered(client: "MLClient", model: "RegisteredModel") -> bool:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        client.models.get(model.name, version=model.version)
    except ResourceNotFoundError:
        return False
    return True


def register(client: "MLClient", model: "RegisteredModel", folder: Path, hashed: str) -> None:
    """Uploads a folder, and registers it when the upload is complete."""
    from azure.ai.ml.entities import Model

    entity = Model(name=model.name, version=model.version, path=folder, tags=tags(), properties=properties(hashed))
    entity.description = f"int4 ONNX model, fine-tuned from {base_model().name}"
    client.models.create_or_update(entity)


def require_complete_run() -> None:
    """Raises InputError unless model, model card, conformance.jsonl and metrics exist, and are those in dvc.lock."""
    from dvc.repo import Repo

    for path in (ONNX, MODEL_CARD, CONFORMANCE, SUMMARY):
        if not path.exists():
            raise InputError(f"{path}: not found; run `make repro`")
    with Repo() as repo:
        changed = repo.data_status(targets=[str(ONNX), str(MODEL_CARD), str(CONFORMANCE)])["uncommitted"]
    if changed:
        raise InputError(
            f"{next(iter(changed.values()))[0]}: is not the version in dvc.lock; run `make repro`, or `dvc checkout`"
        )


@contextmanager
def publication_folder() -> Iterator[Path]:
    """A temporary folder with the model's files, its card, its metrics and conformance.jsonl; the files are hard links."""
    with tempfile.TemporaryDirectory(dir=ONNX.parent, prefix=".publish-") as scratch:
        folder = Path(scratch) / "int4"
        shutil.copytree(ONNX, folder, copy_function=os.link)
        for path in (MODEL_CARD, CONFORMANCE, SUMMARY):
            shutil.copyfile(path, folder / path.name)
        yield folder


def content_hash(folder: Path) -> str:
    """The sha256 of the names and contents of all files in a folder."""
    hashes = {file.relative_to(folder).as_posix(): sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def base_model() -> BaseModel:
    return load(Config, []).base_model


def tags() -> dict[str, str]:
    """The metrics and the origin of the model, for searches in the registry. They can be edited there."""
    metrics = {name: str(value) for name, value in read_json(SUMMARY).items()}
    return {**metrics, "base_model": base_model().name, "license": base_model().license}


def properties(hashed: str) -> dict[str, str]:
    """What identifies the run. They cannot be edited in the registry."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], capture_output=True, text=True
    )
    return {"git_revision": revision.stdout.strip(), "dvc_md5": dvc_md5(), "sha256": hashed}


def dvc_md5() -> str:
    """DVC's hash of models/onnx."""
    locked: Any = OmegaConf.to_container(OmegaConf.load("dvc.lock"))
    return next(out["md5"] for out in locked["stages"]["build"]["outs"] if out["path"] == str(ONNX))


if __name__ == "__main__":
    main()
