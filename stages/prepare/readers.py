"""Reads a file of rows with the reader of its kind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stages.prepare.csv_rows import read_csv
from stages.prepare.files import RowFile, inspect
from stages.prepare.json_rows import read_json
from stages.prepare.tables import read_parquet, read_xlsx

READERS: dict[str, Callable[[RowFile], Iterator[dict[str, Any]]]] = {
    "json": read_json,
    "csv": read_csv,
    "parquet": read_parquet,
    "xlsx": read_xlsx,
}


def read_file(path: Path, name: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a file; prints what was detected if the file is not plain.

    Args:
        path: the file.
        name: its name, if the path has another, as a download in a cache.

    Raises:
        InputError: the file is not in a known format, or damaged.
    """
    if file := inspect(path, name):
        yield from READERS[file.kind](file)
        if file.details:
            print(f"prepare: {file.name}: {', '.join(file.details)}")
