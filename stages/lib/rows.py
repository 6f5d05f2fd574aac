"""Raw rows: files and datasets as they say it, with errors that name the file and the row."""

import glob
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from stages.lib.edge.errors import InputError, one_line
from stages.lib.formats import FORMATS

OPTIONS: dict[str, dict[str, Any]] = {"csv": {"keep_default_na": False}, "parquet": {}}  # NA is a word too


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
    if not Path(path).is_dir() and not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise InputError(f"data.revision: {revision!r} is no commit (40 hex digits); a branch can move")
    if split is None:
        raise InputError(f"data.split: must name a split of {path}, such as train")
    try:
        rows = datasets.load_dataset(path, name, split=split, revision=revision)
    except Exception as error:  # errors of httpx, huggingface_hub, pyarrow and datasets
        raise InputError(f"{path}: could not be loaded from the dataset hub ({one_line(error)})") from error
    return _numbered(path, rows)


def _read_file(path: Path) -> list[Row]:
    if not path.is_file():
        raise InputError(f"{path}: no such file (data.files)")
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(FORMATS)}")
    kind = FORMATS[path.suffix.lower()]
    rows = [] if not path.stat().st_size else _numbered(str(path), _json(path) if kind == "json" else _table(path, kind))
    if not rows:
        raise InputError(f"{path}: the file is empty")
    return rows


def _numbered(source: str, rows: Iterable[dict[str, Any]]) -> list[Row]:
    return [Row(f"{source} row {number}", values) for number, values in enumerate(rows, start=1)]


def _table(path: Path, kind: str) -> list[dict[str, Any]]:
    # A cache of its own: the library's usual one would outlive an edit that keeps size and time.
    with tempfile.TemporaryDirectory() as cache:
        try:
            rows = datasets.load_dataset(
                kind, data_files=glob.escape(str(path)), split="train", cache_dir=cache, keep_in_memory=True, **OPTIONS[kind]
            )
        except Exception as error:  # errors of pandas, pyarrow and datasets
            if "corresponds to no data" in str(error):
                return []
            raise InputError(f"{path}: not readable as {kind} ({one_line(error.__cause__ or error)})") from error
        return list(rows)


def _json(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of JSON as it stands: through the datasets library, text like 2024-01-31 would become a time."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start})") from error
    whole = text.lstrip().startswith("[")
    for number, chunk in enumerate([text] if whole else text.split("\n"), start=1):
        if not chunk.strip():
            continue
        try:
            value = json.loads(chunk)
        except json.JSONDecodeError as error:
            line = error.lineno if whole else number
            raise InputError(f"{path} line {line}: not JSON ({error.msg})") from error
        for position, row in enumerate(value if whole else [value], start=1):
            if not isinstance(row, dict):
                where = f"row {position}" if whole else f"line {number}"
                raise InputError(f"{path} {where}: a row must be a JSON object, not {type(row).__name__}")
            yield row
