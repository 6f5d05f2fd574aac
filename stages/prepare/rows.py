"""Reads raw rows: all columns, with the values exactly as in the file. Errors name the file, the row and the column."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.prepare.hub import read_dataset, read_saved
from stages.prepare.readers import read_file
from tunepress.core.errors import InputError
from tunepress.core.row_files import find_files
from tunepress.text.template import to_text


@dataclass(frozen=True, slots=True)
class Row:
    """A raw row.

    Attributes:
        source: its file and number.
        values: all columns: str, Number, bool, None, list, dict, or what Parquet holds. An InputError is the reason
            why the value cannot be read, which matters only if the column is used.
        name: of its dataset, if it is one of several.
    """

    source: str
    values: dict[str, Any]
    name: str | None = None

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


def read_files(files: list[str]) -> Iterator[Row]:
    """The rows of files, in order and one by one; prints what was detected about a file that is not plain.

    Args:
        files: paths of files or folders, and patterns.

    Raises:
        InputError: a file is missing, empty, not in a known format or damaged.
    """
    for file in files:
        for path in find_files(file):
            yield from read_path(path)


def read_path(path: Path) -> Iterator[Row]:
    row = None
    for row in numbered(str(path), read_saved(path) if path.is_dir() else read_file(path)):
        yield row
    if row is None:
        raise InputError(f"{path}: the file is empty")


def read_hub(path: str, name: str | None, revision: str | None, split: str | None) -> Iterator[Row]:
    """The rows of a dataset on the Hugging Face Hub (or of a local dataset folder) at one revision.

    Raises:
        InputError: the revision is not a commit, or the dataset cannot be loaded or is empty.
    """
    return numbered(path, read_dataset(path, name, revision, split))


def numbered(source: str, rows: Iterable[dict[str, Any]]) -> Iterator[Row]:
    return (Row(f"{source} row {number}", values) for number, values in enumerate(rows, start=1))
