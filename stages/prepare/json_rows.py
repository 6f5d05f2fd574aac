"""Reads JSON: lines, a list, objects one after the other, an object with a list of rows, or the columns of a table."""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

from stages.prepare.files import RowFile, reading
from tunepress.core.errors import InputError
from tunepress.text.template import JSON_NUMBERS

SPACE = " \t\r\n"


class Repeated:
    """An object of JSON that has a key twice."""

    def __init__(self, key: str) -> None:
        self.key = key


def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Repeated:
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    keys = [key for key, _ in pairs]
    return Repeated(next(key for key in keys if keys.count(key) > 1))


DECODER = json.JSONDecoder(**JSON_NUMBERS, object_pairs_hook=make_object)


def read_json(file: RowFile) -> Iterator[dict[str, Any]]:
    """The rows of a JSON file.

    Raises:
        InputError: it is not JSON, a row is not an object, or an object has a key twice.
    """
    with reading(file):
        if is_lines(file):
            yield from read_lines(file)
        else:
            yield from read_whole(file)


def is_lines(file: RowFile) -> bool:
    """Whether each line is a row, and not part of a list or object, or all that a .json file has."""
    with file.open_text(newline="\n") as stream:  # other line breaks may be part of the text
        lines = (line.strip() for line in stream if line.strip())
        first, second = next(lines, ""), next(lines, "")
    if first.startswith("["):
        return False
    if is_complete(first):
        return bool(second) or file.suffix != ".json"
    return not first.startswith("{") or (second.startswith("{") and is_complete(second))


def is_complete(line: str) -> bool:
    try:
        DECODER.decode(line)
    except json.JSONDecodeError:
        return False
    except RecursionError:
        return True
    return True


def read_lines(file: RowFile) -> Iterator[dict[str, Any]]:
    with file.open_text(newline="\n") as stream:
        row = 0
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            row += 1
            try:
                value = DECODER.decode(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{file.name} line {number}: not JSON ({error.msg})") from error
            except RecursionError as error:
                raise InputError(f"{file.name} line {number}: lists or objects are nested too deeply") from error
            yield checked(value, f"{file.name} line {number}", f"{file.name} row {row} (line {number})")


def read_whole(file: RowFile) -> Iterator[dict[str, Any]]:
    with file.open_text(newline="") as stream:
        text = stream.read()
    try:
        if text.lstrip(SPACE).startswith("["):
            yield from numbered(file, iter(list(elements(text))))  # that it is JSON is checked first
            return
        objects = documents(text)
        first, second = next(objects, None), next(objects, None)
        if first is None:
            return
        if second is None:
            if isinstance(first, Repeated):
                raise repeated(file.name, first.key)
            yield from numbered(file, iter(single_document(file, first)))
            return
        file.details.append("JSON objects one after the other")
        yield from numbered(file, chain((first, second), objects))
    except json.JSONDecodeError as error:
        raise InputError(f"{file.name} line {error.lineno}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise InputError(f"{file.name}: lists or objects are nested too deeply") from error


def numbered(file: RowFile, values: Iterator[Any]) -> Iterator[dict[str, Any]]:
    for row, value in enumerate(values, start=1):
        yield checked(value, f"{file.name} row {row}", f"{file.name} row {row}")


def checked(value: Any, where: str, row: str) -> dict[str, Any]:
    """The row, if it is an object without a key that occurs twice."""
    if key := repeated_key(value):
        raise repeated(row, key)
    if not isinstance(value, dict):
        raise InputError(f"{where}: a row must be a JSON object, with the columns as keys")
    return value


def repeated(where: str, key: str) -> InputError:
    return InputError(f"{where}: the key {key!r} occurs twice in one object; remove one")


def repeated_key(value: Any) -> str | None:
    """A key that occurs twice in one object, anywhere in a value."""
    if isinstance(value, Repeated):
        return value.key
    if isinstance(value, list | dict):
        parts = value.values() if isinstance(value, dict) else value
        return next(filter(None, (repeated_key(part) for part in parts if isinstance(part, list | dict | Repeated))), None)
    return None


def elements(text: str) -> Iterator[Any]:
    """The elements of a JSON list, one by one."""
    position = skip(text, text.index("[") + 1)
    if text[position : position + 1] != "]":
        while True:
            value, position = DECODER.raw_decode(text, position)
            yield value
            position = skip(text, position)
            if text[position : position + 1] != ",":
                break
            position = skip(text, position + 1)
    if text[position : position + 1] != "]":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
    end = skip(text, position + 1)
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def documents(text: str) -> Iterator[Any]:
    """The JSON values that a text has one after the other."""
    position = skip(text, 0)
    while position < len(text):
        value, position = DECODER.raw_decode(text, position)
        yield value
        position = skip(text, position)


def skip(text: str, position: int) -> int:
    """The position of the next character that is not white space."""
    while position < len(text) and text[position] in SPACE:
        position += 1
    return position


def single_document(file: RowFile, document: Any) -> list[Any]:
    """The rows of a file that has one JSON value: those of the list in it, those of its columns, or itself."""
    if not isinstance(document, dict) or file.suffix != ".json" or any(map(is_chat, document.values())):
        return [document]
    lists = [key for key, value in document.items() if is_list_of(value, dict)]
    if len(lists) > 1:
        keys = ", ".join(map(repr, lists))
        raise InputError(
            f"{file.name}: is an object with several lists of rows ({keys}); save the list to use as a file of its own"
        )
    if lists:
        file.details.append(f"the rows are the list {lists[0]!r}")
        return list(document[lists[0]])
    for read_table in (split_table, index_table, column_table):
        if (rows := read_table(document)) is not None:
            file.details.append("a JSON table as pandas writes it")
            return rows
    return [document]


def is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, kind | Repeated) for part in value)


def is_chat(value: Any) -> bool:
    """Whether a value is a list of messages, or one."""
    if is_list_of(value, dict):
        return all(isinstance(message, dict) and ("role" in message or "from" in message) for message in value)
    return isinstance(value, dict) and "role" in value


def split_table(document: dict[str, Any]) -> list[Any] | None:
    """The rows of pandas' orient="split"."""
    names, rows = document.get("columns"), document.get("data")
    if not isinstance(names, list) or not isinstance(rows, list) or not is_list_of(rows, list):
        return None
    return [dict(zip(names, row, strict=True)) for row in rows] if all(len(row) == len(names) for row in rows) else None


def index_table(document: dict[str, Any]) -> list[Any] | None:
    """The rows of pandas' orient="index": objects by their number."""
    rows = list(document.values())
    numbered_rows = all(map(str.isdecimal, document)) and all(isinstance(row, dict) for row in rows)
    return rows if rows and numbered_rows and not all(key.isdecimal() for row in rows for key in row) else None


def column_table(document: dict[str, Any]) -> list[Any] | None:
    """The rows of an object of columns, each an object by index, as pandas' `to_json` writes it, or a list."""
    columns = list(document.values())
    if not columns:
        return None
    if all(isinstance(column, dict) for column in columns):
        indexes = list(columns[0])
        if any(list(column) != indexes for column in columns) or not (len(columns) > 1 or all(map(str.isdecimal, indexes))):
            return None
        return [{name: column[index] for name, column in document.items()} for index in indexes]
    if all(isinstance(column, list) for column in columns) and len({len(column) for column in columns}) == 1:
        return [dict(zip(document, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return None
