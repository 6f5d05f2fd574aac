"""`data`: the rows, how they become text, and how they are split."""

from dataclasses import dataclass
from enum import Enum


class Overlong(Enum):
    """What happens to a row of more than `source_max_len` tokens."""

    drop = "drop"
    truncate = "truncate"


CorpusStrategy = Enum(
    "CorpusStrategy",
    {"line-by-line": "line-by-line", "line-by-line-random": "line-by-line-random", "join": "join", "join-random": "join-random"},
)


@dataclass
class Datastore:
    """A file in a datastore of an Azure ML workspace, of which conf/data/azureml_datastore.yaml makes an address."""

    subscription_id: str
    resource_group: str
    workspace_name: str
    datastore_name: str
    relative_path: str


@dataclass
class Data:
    """Rows and their template."""

    files: list[str]
    test_files: list[str]
    # a dataset on the Hugging Face Hub, read when `files` is empty; the names are those of datasets.load_dataset
    path: str | None
    name: str | None
    revision: str | None
    split: str | None
    text_template: str
    completion_column: str
    use_chat_template: bool
    labels: list[str] | None
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
    # of data=azureml_datastore
    datastore: Datastore | None = None
