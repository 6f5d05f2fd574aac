"""Reads raw rows: the columns of a template as text, exactly as in the file. Errors name the file, the row and the column."""

import csv
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunepress.core.errors import InputError, one_line
from tunepress.core.files import CSV_FIELD_LIMIT
from tunepress.remote.addresses import FORMATS
from tunepress.text.prompt import to_text

DECODER = json.JSONDecoder(parse_float=str, parse_int=str)  # a number keeps the text of the file: 1.50 and not 1.5


@dataclass(frozen=True)
class Row:
    """A raw row: its file and number, and the text of its columns."""

    source: str
    values: dict[str, str]


def read_files(files: list[str], columns: Collection[str]) -> list[Row]:
    """Rows of JSON, JSONL, CSV and Parquet files, in order.

    Args:
        files: their paths.
        columns: the columns to read; all others are ignored.

    Raises:
        InputError: a file is missing, empty, or not in a known format; a column is missing or not text.
    """
    return [row for file in files for row in _read_file(Path(file), columns)]


def read_hub(path: str, name: str | None, revision: str | None, split: str | None, columns: Collection[str]) -> list[Row]:
    """Rows of a dataset on the Hugging Face Hub (or of a local dataset folder) at one revision.

    Raises:
        InputError: the revision is not a commit, the dataset cannot be loaded or is empty, or a column is missing or not text.
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
            text = datasets.Features({column: datasets.Value("string") for column in columns})
            options = {"features": text, "usecols": list(columns), "keep_default_na": False}
        rows = datasets.load_dataset(path, name, split=split, revision=revision, **options)
    except Exception as error:  # errors of httpx, huggingface_hub, pandas, pyarrow and datasets
        reason = one_line(error.__cause__ or error)
        raise InputError(f"{path}: could not be loaded from the dataset hub ({reason})") from error
    if not len(rows):
        raise InputError(f"{path}: split {split} is empty")
    for column in columns:
        if column not in rows.column_names:
            raise _no_column(f"{path} row 1", column, rows.column_names)
        if isinstance(rows.features[column], datasets.Json):  # datasets 5.2 reads the text "007" in such a column as 7
            cure = "the datasets library does not keep its text; download the files and name them in data.files"
            raise InputError(f"{path}: column {column!r} holds several types, and {cure}")
    return _numbered(path, rows.select_columns(list(columns)), columns)


def _read_file(path: Path, columns: Collection[str]) -> list[Row]:
    if not path.is_file():
        raise InputError(f"{path}: no such file (data.files)")
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(FORMATS)}")
    read = {"json": _json, "csv": _csv, "parquet": _parquet}[FORMATS[path.suffix.lower()]]
    rows = _numbered(str(path), read(path, columns), columns) if path.stat().st_size else []
    if not rows:
        raise InputError(f"{path}: the file is empty")
    return rows


def _numbered(source: str, rows: Iterable[dict[str, Any]], columns: Collection[str]) -> list[Row]:
    return [_row(f"{source} row {number}", values, columns) for number, values in enumerate(rows, start=1)]


def _row(source: str, values: dict[str, Any], columns: Collection[str]) -> Row:
    texts = {}
    for column in columns:
        if column not in values:
            raise _no_column(source, column, values)
        try:
            texts[column] = to_text(values[column])
        except ValueError as error:
            raise InputError(f"{source}: column {column!r} holds {error}") from error
    return Row(source, texts)


def _no_column(source: str, column: str, names: Iterable[str]) -> InputError:
    known = ", ".join(names).encode("utf-8", "backslashreplace").decode()  # half a surrogate pair cannot be printed
    return InputError(f"{source}: no column {column!r}, which data.text_template names; there are: {known}")


def _check_names(path: Path, names: list[str], columns: Collection[str]) -> None:
    for column in columns:
        if names.count(column) > 1:
            raise InputError(f"{path}: {names.count(column)} columns are called {column!r}; rename all but the one to use")


def _csv(path: Path, columns: Collection[str]) -> Iterator[dict[str, str]]:
    csv.field_size_limit(CSV_FIELD_LIMIT)
    names: list[str] = []
    row = 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                if not cells:  # an empty line
                    continue
                if not names:
                    names = cells
                    _check_names(path, names, columns)
                    continue
                row += 1
                if any(cells[len(names) :]):
                    problem = f"{len(cells)} cells, but the header has {len(names)}; put text that has commas in double quotes"
                    raise InputError(f"{path} row {row} (line {reader.line_num}): {problem}")
                if any(name not in names[: len(cells)] for name in columns if name in names):
                    problem = f"{len(cells)} cells, but the header has {len(names)}; write empty cells too"
                    raise InputError(f"{path} row {row} (line {reader.line_num}): {problem}")
                yield dict(zip(names, cells, strict=False))
        except csv.Error as error:
            raise InputError(f"{path} row {row + 1} (line {reader.line_num}): not CSV ({error})") from error
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error


def _parquet(path: Path, columns: Collection[str]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        file = pq.ParquetFile(path)
    except Exception as error:  # errors of pyarrow
        raise InputError(f"{path}: not readable as parquet ({one_line(error)})") from error
    with file:
        names = file.schema_arrow.names
        if not file.metadata.num_rows:
            return
        _check_names(path, names, columns)
        for column in columns:
            if column not in names:
                raise _no_column(f"{path} row 1", column, names)
        try:
            for batch in file.iter_batches(columns=list(columns)):
                parts = [_values(batch.column(column)) for column in columns]
                for values in zip(*parts, strict=True):
                    yield dict(zip(columns, values, strict=True))
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


def _json(path: Path, _: Collection[str]) -> Iterator[dict[str, Any]]:
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
