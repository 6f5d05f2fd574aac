"""Reads raw rows: all columns, with the values exactly as in the file. Errors name the file, the row and the column."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunepress.core.errors import InputError, one_line
from tunepress.core.files import CSV_FIELD_LIMIT
from tunepress.remote.addresses import FORMATS
from tunepress.text.template import JSON_NUMBERS, to_text

BATCH = 10_000  # rows that are converted from Arrow at once
DECODER = json.JSONDecoder(**JSON_NUMBERS)


@dataclass(frozen=True, slots=True)
class Row:
    """A raw row.

    Attributes:
        source: its file and number.
        values: all columns: str, Number, bool, None, list, dict, or what Parquet holds. An InputError is the reason
            why the value cannot be read, which matters only if the column is used.
    """

    source: str
    values: dict[str, Any]

    def text(self, column: str) -> str:
        """The text of a column.

        Raises:
            InputError: the column is missing, or its value is not text.
        """
        if column not in self.values:
            known = ", ".join(self.values).encode("utf-8", "backslashreplace").decode()  # half a surrogate pair cannot be printed
            raise InputError(f"{self.source}: no column {column!r}, which data.text_template names; there are: {known}")
        value = self.values[column]
        if isinstance(value, InputError):
            raise value
        try:
            return to_text(value)
        except ValueError as error:
            raise InputError(f"{self.source}: column {column!r} holds {error}") from error


def read_files(files: list[str]) -> list[Row]:
    """Rows of JSON, JSONL, CSV and Parquet files, in order.

    Args:
        files: their paths.

    Raises:
        InputError: a file is missing, empty, or not in a known format.
    """
    return [row for file in files for row in _read_file(Path(file))]


def read_hub(path: str, name: str | None, revision: str | None, split: str | None) -> list[Row]:
    """Rows of a dataset on the Hugging Face Hub (or of a local dataset folder) at one revision.

    Raises:
        InputError: the revision is not a commit, or the dataset cannot be loaded or is empty.
    """
    if not Path(path).is_dir() and not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise InputError(f"data.revision: must be a commit (40 hex digits), not a branch, which can move, got {revision!r}")
    if split is None:
        raise InputError(f"data.split: must name a split of {path}, such as train")
    import datasets  # takes seconds
    from datasets.packaged_modules.csv.csv import Csv

    try:
        builder = datasets.load_dataset_builder(path, name, revision=revision)
        options: dict[str, Any] = {}
        if isinstance(builder, Csv):  # otherwise pandas would infer the types of its columns
            first = datasets.load_dataset(path, name, split=split, revision=revision, nrows=1)
            text = datasets.Features({column: datasets.Value("string") for column in first.column_names})
            options = {"features": text, "keep_default_na": False}
        dataset = datasets.load_dataset(path, name, split=split, revision=revision, **options)
    except Exception as error:  # errors of httpx, huggingface_hub, pandas, pyarrow and datasets
        reason = one_line(error.__cause__ or error)
        raise InputError(f"{path}: could not be loaded from the dataset hub ({reason})") from error
    if not len(dataset):
        raise InputError(f"{path}: split {split} is empty")
    return _numbered(path, _dataset_rows(path, dataset))


def _dataset_rows(path: str, dataset: Any) -> Iterator[dict[str, Any]]:
    import datasets

    names = dataset.column_names
    for table in dataset.with_format("arrow").iter(batch_size=BATCH):
        columns = []
        for name in names:
            feature = dataset.features[name]
            if isinstance(feature, datasets.Json):  # datasets 5.2 reads the text "007" in such a column as 7
                cure = "the datasets library does not keep its text; download the files and name them in data.files"
                columns.append([InputError(f"{path}: column {name!r} holds several types, and {cure}")] * len(table))
            else:
                columns.append(_values(table.column(name)))
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))


def _read_file(path: Path) -> list[Row]:
    if not path.is_file():
        raise InputError(f"{path}: no such file (data.files)")
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(FORMATS)}")
    read = {"json": _json, "csv": _csv, "parquet": _parquet}[FORMATS[path.suffix.lower()]]
    rows = _numbered(str(path), read(path)) if path.stat().st_size else []
    if not rows:
        raise InputError(f"{path}: the file is empty")
    return rows


def _numbered(source: str, rows: Iterable[dict[str, Any]]) -> list[Row]:
    return [Row(f"{source} row {number}", values) for number, values in enumerate(rows, start=1)]


def _ambiguous(path: Path, names: list[str]) -> dict[str, InputError]:
    """The names that several columns have."""
    counts = Counter(names)
    return {
        name: InputError(f"{path}: {count} columns are called {name!r}; rename all but the one to use")
        for name, count in counts.items()
        if count > 1
    }


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(CSV_FIELD_LIMIT)
    names: list[str] = []
    ambiguous: dict[str, InputError] = {}
    row = 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                if not cells:  # an empty line
                    continue
                if not names:
                    names, ambiguous = cells, _ambiguous(path, cells)
                    continue
                row += 1
                where = f"{path} row {row} (line {reader.line_num}): {len(cells)} cells, but the header has {len(names)}"
                if any(cells[len(names) :]):
                    raise InputError(f"{where}; put text that has commas in double quotes")
                values: dict[str, Any] = dict(zip(names, cells, strict=False))
                for name in names[len(cells) :]:
                    values[name] = InputError(f"{where}; write empty cells too")
                yield values | ambiguous
        except csv.Error as error:
            raise InputError(f"{path} row {row + 1} (line {reader.line_num}): not CSV ({error})") from error
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        file = pq.ParquetFile(path)
    except Exception as error:  # errors of pyarrow
        raise InputError(f"{path}: not readable as parquet ({one_line(error)})") from error
    with file:
        names = file.schema_arrow.names
        if not file.metadata.num_rows:
            return
        ambiguous = _ambiguous(path, names)
        try:
            for batch in file.iter_batches(BATCH):
                for values in zip(*map(_values, batch.columns), strict=True):
                    yield dict(zip(names, values, strict=True)) | ambiguous
        except Exception as error:  # errors of pyarrow
            raise InputError(f"{path}: not readable as parquet ({one_line(error)})") from error


def _values(column: Any) -> list[Any]:
    """The values of an Arrow array; where its text is not UTF-8, the bytes."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return column.cast("large_binary").to_pylist()
    if str(column.type) == "float":  # of 32 bits, where 0.1 as a double is 0.10000000149011612
        return [None if value is None else float(str(np.float32(value))) for value in values]
    return values


def _json(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    whole = text.lstrip().startswith("[")
    for number, chunk in enumerate([text] if whole else text.split("\n"), start=1):
        if not chunk.strip():
            continue
        try:
            value = DECODER.decode(chunk)
        except json.JSONDecodeError as error:
            line = error.lineno if whole else number
            raise InputError(f"{path} line {line}: not JSON ({error.msg})") from error
        except RecursionError as error:
            where = str(path) if whole else f"{path} line {number}"
            raise InputError(f"{where}: lists or objects are nested too deeply") from error
        for position, row in enumerate(value if whole else [value], start=1):
            if not isinstance(row, dict):
                where = f"row {position}" if whole else f"line {number}"
                raise InputError(f"{path} {where}: a row must be a JSON object, with the columns as keys")
            yield row


def _not_utf8(path: Path) -> InputError:
    data = path.read_bytes()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return InputError(f"{path} line {line}: not UTF-8 (byte {error.start}); save the file as UTF-8")
    return InputError(f"{path}: changed while it was read")
