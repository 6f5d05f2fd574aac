"""`data`: the rows, how they become text, and how they are split."""

from dataclasses import dataclass
from enum import Enum


class Overlong(Enum):
    """What happens to a row of more than `source_max_len` tokens."""

    drop = "drop"
    truncate = "truncate"


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
    eval_dataset_size: float
    test_size: float
    # the path that DVC watches, derived from `files` in conf/config.yaml
    tracked: str = "???"
