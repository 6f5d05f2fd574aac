"""Reads CSV: the cells exactly as written, whatever separates them. A row whose columns would shift is an error."""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from stages.prepare.files import RowFile, reading
from tunepress.core.errors import InputError
from tunepress.core.files import CSV_FIELD_LIMIT

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
PLAIN = {".csv": ",", ".tsv": "\t"}  # not reported
SAMPLE = 1000  # rows that decide between several delimiters
DIRECTIVE = re.compile(r"(?:sep|SEP)=(.)\r?\n?")  # the first line of some of Excel's files


def read_csv(file: RowFile) -> Iterator[dict[str, Any]]:
    """The rows of a CSV file.

    Raises:
        InputError: a row has more cells than the header, or a quote is never closed.
    """
    csv.field_size_limit(CSV_FIELD_LIMIT)
    with reading(file):
        delimiter = detect_delimiter(file)
        if delimiter != PLAIN.get(file.suffix):
            file.details.append(f"cells separated by {DELIMITERS.get(delimiter, repr(delimiter))}")
        yield from rows(file, delimiter)


def rows(file: RowFile, delimiter: str) -> Iterator[dict[str, Any]]:
    names: list[str] | None = None
    ambiguous: dict[str, InputError] = {}
    width = 0  # cells of each row that has more than the header; the additional ones are empty
    for number, line, cells in records(file, delimiter):
        if names is None:
            names, ambiguous = cells, ambiguous_columns(file.name, cells)
            continue
        row = number - 1
        width = max(width, len(names)) if row > 1 else max(len(cells), len(names))
        where = f"{file.name} row {row} (line {line}): {len(cells)} cells, but the header has {len(names)}"
        if any(cells[len(names) :]) or len(names) < len(cells) != width:
            raise InputError(f"{where}; put text that contains {name_of(delimiter)} in double quotes")
        values: dict[str, Any] = dict(zip(names, cells, strict=False))
        for name in names[len(cells) :]:
            values[name] = InputError(f"{where}; write empty cells too")
        yield values | ambiguous


def records(file: RowFile, delimiter: str) -> Iterator[tuple[int, int, list[str]]]:
    """Each record that is not an empty line, with its number, where the header is 1, and the line on which it ends."""
    with file.open_text(newline="") as stream:
        if not DIRECTIVE.fullmatch(stream.readline()):
            stream.seek(0)
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        number = 0
        begins = 1
        try:
            for cells in reader:
                if cells:
                    number += 1
                    yield number, reader.line_num, cells
                begins = reader.line_num + 1
        except csv.Error as error:
            where = f"{file.name} row {number} (line {reader.line_num})" if number else f"{file.name} line {reader.line_num}"
            cure = f"the row begins at line {begins}; close its double quote, or write a double quote inside quoted text twice"
            raise InputError(f"{where}: not CSV ({error}); {cure}") from error


def detect_delimiter(file: RowFile) -> str:
    """The delimiter: the one that divides the header; if several do, the one that divides the rows into as many cells.

    It is not guessed from the text of the rows as `csv.Sniffer` does, because text may contain any character.
    """
    with file.open_text(newline="") as stream:
        if directive := DIRECTIVE.fullmatch(stream.readline()):
            return directive.group(1)
    headers = {delimiter: next(lengths(file, delimiter), 0) for delimiter in DELIMITERS}
    dividing = [delimiter for delimiter, cells in headers.items() if cells > 1]
    if len(dividing) < 2:
        return dividing[0] if dividing else ","
    fitting = {
        delimiter: sum(cells == headers[delimiter] for cells in islice(lengths(file, delimiter), SAMPLE))
        for delimiter in dividing
    }
    best = [delimiter for delimiter, rows in fitting.items() if rows == max(fitting.values())]
    if len(best) > 1:
        names = " or ".join(map(name_of, best))
        raise InputError(f"{file.name}: the cells may be separated by {names}; put the names in the header in double quotes")
    return best[0]


def lengths(file: RowFile, delimiter: str) -> Iterator[int]:
    """The number of cells of the header and of each row, up to one that is not CSV with this delimiter."""
    with suppress(InputError):
        for _, _, cells in records(file, delimiter):
            yield len(cells)


def name_of(delimiter: str) -> str:
    return f"a {DELIMITERS[delimiter]}" if delimiter in DELIMITERS else repr(delimiter)


def ambiguous_columns(source: str, names: list[str]) -> dict[str, InputError]:
    """The names that several columns have, each with the error for a use of it."""
    return {
        name: InputError(f"{source}: {count} columns are called {name!r}; rename all but the one to use")
        for name, count in Counter(names).items()
        if count > 1
    }
