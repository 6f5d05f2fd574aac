"""Raw rows: read through the datasets library, with errors that name the file and the row."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError

from stages.lib.edge.configuration import one_line
from stages.lib.edge.errors import InputError

FORMATS = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class Row:
    """One raw row: where it stands, and its columns."""

    source: str
    values: dict[str, Any]


def read_files(files: list[str]) -> list[Row]:
    """Rows of JSON, JSONL, CSV and Parquet files, in order.

    Raises:
        InputError: a file is absent, empty, of an unknown kind, or not what its name says.
    """
    return [row for file in files for row in _read_file(Path(file))]


def read_hub(path: str, name: str | None, revision: str | None, split: str | None) -> list[Row]:
    """Rows of a dataset on the Hugging Face Hub (or of a local dataset folder) at one revision.

    Raises:
        InputError: no pinned revision, or it could not be loaded.
    """
    if not Path(path).is_dir() and not (revision and len(revision) == 40):
        raise InputError(f"data.revision: {revision!r} is no commit (40 hex digits); a branch can move")
    if split is None:
        raise InputError(f"data.split: must name a split of {path}, such as train")
    try:
        rows = datasets.load_dataset(path, name, split=split, revision=revision)
    except Exception as error:  # errors of httpx, huggingface_hub, pyarrow and datasets
        raise InputError(f"{path}: could not be loaded from the dataset hub ({one_line(error)})") from error
    return list(_numbered(path, rows))


def _read_file(path: Path) -> Iterator[Row]:
    if not path.is_file():
        raise InputError(f"{path}: no such file (data.files)")
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(FORMATS)}")
    if not path.stat().st_size:
        raise InputError(f"{path}: the file is empty")
    # A cache of its own: the library's usual one would outlive an edit that keeps size and time.
    with tempfile.TemporaryDirectory() as cache:
        kind = FORMATS[path.suffix.lower()]
        try:
            rows = datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=cache, keep_in_memory=True)
        except DatasetGenerationError as error:
            where = _first_bad_json(path) if kind == "json" else ""
            raise InputError(where or f"{path}: not readable as {kind} ({one_line(error.__cause__ or error)})") from error
    yield from _numbered(str(path), rows)


def _numbered(source: str, rows: datasets.Dataset) -> Iterator[Row]:
    for number, values in enumerate(rows, start=1):
        yield Row(f"{source} row {number}", values)


def _first_bad_json(path: Path) -> str:
    """Says where a file stops being JSON; empty if it is JSON of another shape than rows."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        return f"{path}: not UTF-8 (byte {error.start})"
    whole = text.lstrip().startswith("[")
    for number, chunk in enumerate([text] if whole else text.split("\n"), start=1):
        try:
            if chunk.strip():
                value = json.loads(chunk)
                if not isinstance(value, list if whole else dict):
                    return f"{path} line {number}: a row must be a JSON object, not {type(value).__name__}"
        except json.JSONDecodeError as error:
            return f"{path} line {error.lineno if whole else number}: not JSON ({error.msg})"
    return ""
