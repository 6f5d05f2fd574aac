"""Reads tables with types: Parquet, Arrow and Excel."""

import json
import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np

from stages.prepare.csv_rows import ambiguous_columns
from stages.prepare.files import RowFile, reading
from tunepress.core.errors import InputError, one_line

BATCH = 10_000  # rows that are converted from Arrow at once
PLAIN_NUMBER = re.compile(r"(0+)(?:\.(0+))?")  # a format that pads a number with zeros
GENERAL = ("General", "@")


def read_parquet(file: RowFile) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file. A label is its name, where the datasets library has stored the names.

    Raises:
        InputError: the file cannot be read.
    """
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    with reading(file):
        stream = file.open_seekable()
    try:
        table = pq.ParquetFile(stream)
    except Exception as error:  # errors of pyarrow
        raise InputError(f"{file.name}: not readable as parquet ({one_line(error)})") from error
    with stream, table:
        names = table.schema_arrow.names
        if not table.metadata.num_rows:
            return
        ambiguous, labels = ambiguous_columns(file.name, names), label_names(table.schema_arrow.metadata or {})
        try:
            for batch in table.iter_batches(BATCH):
                for row in batch_rows(names, batch.columns, labels):
                    yield row | ambiguous
        except Exception as error:  # errors of pyarrow
            raise InputError(f"{file.name}: not readable as parquet ({one_line(error)})") from error


def label_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """The names of the labels of each column of the type ClassLabel, from the metadata of the datasets library."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, AttributeError):  # another program's metadata
        return {}


def batch_rows(names: list[str], columns: list[Any], labels: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    """The rows of Arrow arrays.

    Args:
        names: of the columns.
        columns: their arrays.
        labels: the names of the labels by the name of the column; -1 stands for none.
    """
    parts = []
    for name, column in zip(names, columns, strict=True):
        cells = values(column)
        if name in labels:
            cells = [None if cell is None or cell < 0 else labels[name][cell] for cell in cells]
        parts.append(cells)
    for row in zip(*parts, strict=True):
        yield dict(zip(names, row, strict=True))


def values(column: Any) -> list[Any]:
    """The values of an Arrow array; where its text is not UTF-8, the bytes."""
    try:
        cells: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return column.cast("large_binary").to_pylist()
    if str(column.type) == "float":  # of 32 bits, where 0.1 as a double is 0.10000000149011612
        return [None if cell is None else float(str(np.float32(cell))) for cell in cells]
    return cells


def read_xlsx(file: RowFile) -> Iterator[dict[str, Any]]:
    """The rows of the first sheet of an Excel workbook, whose first row has the names of the columns.

    Raises:
        InputError: the file cannot be read.
    """
    from openpyxl import load_workbook  # type: ignore[import-untyped]

    with reading(file):
        stream = file.open_seekable()
    with stream:
        try:
            workbook = load_workbook(stream, read_only=True, data_only=True)
            sheet = workbook.worksheets[0]
            if len(workbook.worksheets) > 1:
                file.details.append(f"the first of {len(workbook.worksheets)} sheets, {sheet.title!r}")
            sheet.reset_dimensions()  # some programs write wrong ones
            yield from sheet_rows(file.name, sheet)
        except InputError:
            raise
        except Exception as error:  # errors of openpyxl, zipfile and XML
            raise InputError(f"{file.name}: not readable as xlsx ({one_line(error)}); save the file again") from error


def sheet_rows(source: str, sheet: Any) -> Iterator[dict[str, Any]]:
    names: list[str] = []
    ambiguous: dict[str, InputError] = {}
    for line in sheet.iter_rows():
        cells = [cell_text(cell) for cell in line]
        if not any(cells):
            continue
        if not names:
            names = ["" if isinstance(cell, InputError) else cell for cell in cells]
            ambiguous = ambiguous_columns(source, names)
            continue
        if any(cells[len(names) :]):
            number = next(cell.row for cell in line if cell.value is not None)
            raise InputError(f"{source} line {number}: {len(cells)} cells, but the header has {len(names)}; name each column")
        row: dict[str, Any] = dict.fromkeys(names, "") | dict(zip(names, cells, strict=False))
        yield row | ambiguous


def cell_text(cell: Any) -> str | InputError:
    """The text that Excel shows in a cell, or the error for a use of it."""
    from openpyxl.utils.escape import unescape  # type: ignore[import-untyped]

    value = cell.value
    if value is None:
        return ""
    where = f"cell {cell.coordinate}"
    if isinstance(value, str):
        if cell.data_type == "e":
            return InputError(f"{where} holds the error {value}; correct it")
        return str(unescape(value))
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, date | datetime | time | timedelta):
        return InputError(f"{where} holds a date or time, which each program shows in another way; format the column as text")
    if cell.number_format in GENERAL:
        return str(value)
    if padded := PLAIN_NUMBER.fullmatch(cell.number_format):
        whole, decimals = padded.group(1), padded.group(2) or ""
        sign, size = ("-" if value < 0 else ""), abs(value)
        return f"{sign}{size:0{len(whole) + len(decimals) + bool(decimals)}.{len(decimals)}f}"
    return InputError(f"{where} holds a number in the format {cell.number_format!r}; format the column as text")
