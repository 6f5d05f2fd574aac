"""`data`: the rows, how they become text, and how they are split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import NoneType
from typing import Any

from tunepress.core.errors import InputError
from tunepress.remote.collected import LISTS


class Overlong(Enum):
    """What happens to a row of more than `source_max_len` tokens."""

    drop = "drop"
    truncate = "truncate"


class Format(Enum):
    """What the columns of the rows are."""

    template = "template"  # columns that fill text_template
    messages = "messages"  # OpenAI's and Azure's
    sharegpt = "sharegpt"  # conversations of `from` and `value`
    alpaca = "alpaca"  # instruction, input and output
    prompt_completion = "prompt_completion"  # texts or lists of messages


class TrainOn(Enum):
    """Which turns of a conversation are learned."""

    all = "all"
    last = "last"


CorpusStrategy = Enum(
    "CorpusStrategy",
    {"line-by-line": "line-by-line", "line-by-line-random": "line-by-line-random", "join": "join", "join-random": "join-random"},
)


@dataclass
class Datastore:
    """A file in a datastore of an Azure ML workspace, of which conf/data/azureml_datastore.yaml makes an address."""

    subscription_id: str  # of the workspace
    resource_group: str  # of the workspace
    workspace_name: str  # of Azure ML
    datastore_name: str  # in the workspace
    relative_path: str  # of the file in the datastore

    @property
    def address(self) -> str:
        """The address of the file, in the form of Azure ML's studio."""
        return (
            f"azureml://subscriptions/{self.subscription_id}/resourcegroups/{self.resource_group}/workspaces/"
            f"{self.workspace_name}/datastores/{self.datastore_name}/paths/{self.relative_path.lstrip('/')}"
        )


@dataclass
class Dataset:
    """One of several sets of rows."""

    path: str  # a path, a folder or a pattern
    name: str  # by which metrics are also reported
    weight: float = 1.0  # 2: each training row twice; 0.5: half of them
    format: Format | None = None  # None: that of data.format, or detected from the columns

    @classmethod
    def of(cls, entry: Any) -> "Dataset":
        """The dataset of an entry of data.datasets.

        Raises:
            InputError: a key is missing or unknown, or a value has another type.
        """
        if isinstance(entry, cls):
            return entry
        types: dict[str, Any] = {"path": str, "name": str, "weight": (int, float), "format": (str, NoneType)}
        known = isinstance(entry, Mapping) and {"path", "name"} <= entry.keys() <= types.keys()
        if not known or not all(isinstance(value, types[key]) for key, value in entry.items()):
            form = "{path: rows/a.csv, name: a, weight: 1.0, format: messages}"
            raise InputError(f"data.datasets: must be a list of {form}, got {entry}")
        format = entry.get("format")
        if format is not None and format not in Format.__members__:
            raise InputError(f"data.datasets: format must be one of {', '.join(Format.__members__)}, got {format!r}")
        return cls(**{**entry, "format": None if format is None else Format[format]})


@dataclass
class Data:
    """Rows and their template."""

    files: Any  # a path, a folder, a pattern, an address, or a list of them; as an attribute it is always a list[str]
    datasets: Any  # instead of files; as an attribute it is always a list[Dataset]
    validation_files: Any  # the same; validation rows of your own; empty: a share of the rows, eval_dataset_size
    test_files: Any  # the same; a test set of your own; empty: a share of the rows, test_size
    calibration_files: Any  # the same; rows for gptq; empty: the training rows
    # read when `files` is empty; the names are those of datasets.load_dataset
    path: str | None  # a dataset of the Hugging Face Hub, or a folder
    name: str | None  # a configuration of the dataset
    revision: str | None  # the dataset's commit
    split: str | None  # of the dataset, such as train
    format: Format | None  # null: detected from the columns
    # of the format template
    text_template: str | None  # columns in braces; the text before completion_column is the prompt, the rest is learned
    completion_column: str
    use_chat_template: bool  # true: put prompt and completion into the chat template
    # of conversations
    field_messages: str | None  # the column with the messages
    message_property_mappings: dict[str, str] | None  # the keys of a message in the file, by the key of a chat template
    roles: dict[str, list[str]] | None  # names of the roles in the file, by the role of a chat template
    train_on: TrainOn
    roles_to_train: list[str]
    chat_template: str | None  # a file in Jinja; null: that of the base model
    chat_template_kwargs: dict[str, Any]
    labels: Any  # the answers of a classification, a list[str]; null: free text
    json_schema: str | None  # a file, the JSON schema of the answers; null: they need not be JSON
    source_max_len: int
    overlong: Overlong
    corpus_strategy: CorpusStrategy
    max_samples: int | None
    max_validation_samples: int | None
    max_test_samples: int | None
    pad_to_max_len: bool
    use_attention_mask: bool
    eval_dataset_size: float
    test_size: float
    near_duplicates: float | None  # null: only the same prompts are compared
    # of data=azureml_datastore
    datastore: Datastore | None = None

    def __post_init__(self) -> None:
        for name in LISTS:
            setattr(self, name, as_list(getattr(self, name)))
        self.datasets = [Dataset.of(entry) for entry in as_list(self.datasets)]


def as_list(files: Any) -> list[Any]:
    """The value of data.files or another list of files as a list: a single path is a list of one, null an empty list."""
    return [] if files is None else list(files) if isinstance(files, Sequence) and not isinstance(files, str) else [files]
