"""Reads datasets with the datasets library: from the Hugging Face Hub, from a folder, and those of `save_to_disk`."""

import re
from collections.abc import Iterator
from itertools import chain, starmap
from pathlib import Path
from typing import Any

from stages.prepare.readers import read_file
from stages.prepare.tables import BATCH, batch_rows
from tunepress.core.errors import InputError, one_line
from tunepress.core.row_files import is_saved_dataset, kind_problem


def read_saved(path: Path, split: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a folder that `save_to_disk` has written.

    Raises:
        InputError: it cannot be read, or has several splits of which `split` names none.
    """
    import datasets  # takes seconds

    try:
        dataset = datasets.load_from_disk(str(path))
    except Exception as error:  # errors of datasets and pyarrow
        raise InputError(f"{path}: not readable with load_from_disk of the datasets library ({one_line(error)})") from error
    if isinstance(dataset, datasets.DatasetDict):
        if split not in dataset:
            splits = ", ".join(str(path / name) for name in dataset)
            raise InputError(f"{path}: has several splits; name the folder of one of them: {splits}")
        dataset = dataset[split]
    return dataset_rows(str(path), dataset)


def read_dataset(path: str, name: str | None, revision: str | None, split: str | None) -> Iterator[dict[str, Any]]:
    """The rows of a dataset on the Hugging Face Hub (or of a local dataset folder) at one revision.

    Raises:
        InputError: the revision is not a commit, or the dataset cannot be loaded or is empty.
    """
    if not Path(path).is_dir() and not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise InputError(f"data.revision: must be a commit (40 hex digits), not a branch, which can move, got {revision!r}")
    if split is None:
        raise InputError(f"data.split: must name a split of {path}, such as train")
    if is_saved_dataset(Path(path)):
        return read_saved(Path(path), split)
    import datasets  # takes seconds

    try:
        builder = datasets.load_dataset_builder(path, name, revision=revision)
        files = plain_files(builder, split)
        dataset = None if files else datasets.load_dataset(path, name, split=split, revision=revision)
    except InputError:
        raise
    except Exception as error:  # errors of httpx, huggingface_hub, pandas, pyarrow and datasets
        reason = one_line(error.__cause__ or error)
        raise InputError(f"{path}: could not be loaded from the dataset hub ({reason})") from error
    rows = chain.from_iterable(starmap(read_file, files)) if dataset is None else dataset_rows(path, dataset)
    if (first := next(rows, None)) is None:
        raise InputError(f"{path}: split {split} is empty")
    return chain([first], rows)


def plain_files(builder: Any, split: str) -> list[tuple[Path, str]]:
    """The files of a split of CSV or JSON and their names, to be read here; empty if only the datasets library can read it.

    The library would infer the types of their columns, and take the first column of a CSV file for an index if the rows have
    more cells than the header.
    """
    from datasets import DownloadManager
    from datasets.packaged_modules.csv.csv import Csv
    from datasets.packaged_modules.json.json import Json

    if not isinstance(builder, Csv | Json) or (isinstance(builder, Json) and builder.config.field):
        return []
    names = next((list(map(str, names)) for key, names in builder.config.data_files.items() if str(key) == split), [])
    if not names and isinstance(builder, Csv):
        known = ", ".join(map(str, builder.config.data_files))
        raise InputError(f"data.split: must be a split of {builder.dataset_name} ({known}), got {split!r}")
    if any(kind_problem(name) or "::" in name for name in names) and isinstance(builder, Json):
        return []
    paths = DownloadManager(dataset_name=builder.dataset_name).download(names)
    return [(Path(path), name) for path, name in zip(paths, names, strict=True)]


def dataset_rows(path: str, dataset: Any) -> Iterator[dict[str, Any]]:
    """The rows of a dataset, without decoding images or audio. A label is its name."""
    import datasets

    names = dataset.column_names
    labels = {name: feature.names for name, feature in dataset.features.items() if isinstance(feature, datasets.ClassLabel)}
    cure = "the datasets library does not keep its text; download the files and name them in data.files"
    mixed = {
        name: InputError(f"{path}: column {name!r} holds several types, and {cure}")
        for name, feature in dataset.features.items()
        if isinstance(feature, datasets.Json)  # datasets 5.2 reads the text "007" in such a column as 7
    }
    for table in dataset.with_format("arrow").iter(batch_size=BATCH):
        for row in batch_rows(names, table.columns, labels):
            yield row | mixed
