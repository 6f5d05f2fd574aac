r"""Templates: text with columns in braces, `{name}`.

A part in double brackets, as `[[\n{name}]]`, is left out where a column in it is empty. Braces and double brackets written twice
are literal. White space around a value is not part of it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from tunepress.core.errors import InputError


class Number(str):
    """A number of JSON as the text that the file has: 1.50 and not 1.5."""

    __slots__ = ()


JSON_NUMBERS: dict[str, Any] = {"parse_float": Number, "parse_int": Number}  # arguments of json.loads


def split_template(text_template: str, completion_column: str) -> tuple[str, str]:
    """Splits a template of a whole row into prompt and completion, before the completion column.

    Raises:
        InputError: the template is malformed, has no column in the prompt, or does not have the completion column exactly once.
    """
    columns = column_names(text_template)
    if columns.count(completion_column) != 1:
        raise InputError(
            f"data.text_template: must contain {{{completion_column}}} (data.completion_column) exactly once; "
            f"it contains {', '.join(columns) or 'no column'}"
        )
    parts = list(_parts(text_template))
    place = next(number for number, part in enumerate(parts) if completion_column in part.columns)
    if parts[place].optional:
        raise InputError(f"data.text_template: {{{completion_column}}} is the answer, so it cannot be in double brackets")
    prompt, completion = ("".join(part.source for part in side) for side in (parts[:place], parts[place:]))
    if not column_names(prompt):
        raise InputError(f"data.text_template: has no column before {{{completion_column}}}, so every prompt would be the same")
    return prompt, completion


def column_names(template: str) -> list[str]:
    """The columns in a template, in order.

    Raises:
        InputError: the template is malformed.
    """
    return [name for part in _parts(template) for name in part.columns]


def optional_columns(template: str) -> set[str]:
    """The columns that may be empty or missing, because they are only in optional parts."""
    parts = list(_parts(template))
    return {name for part in parts if part.optional for name in part.columns} - {
        name for part in parts if not part.optional for name in part.columns
    }


def literals(template: str) -> list[tuple[str, str | None]]:
    """The literal texts of a template, each with the column that follows it or None. Optional parts count as present."""
    return [piece for part in _parts(template) for piece in part.pieces]


def render(template: str, row: Mapping[str, Any]) -> str:
    """Fills a template with the values of a row, without the white space around them."""
    return "".join(part.render(row) for part in _parts(template))


def to_text(value: Any) -> str:
    """Converts a value of a row to text: bytes are decoded as UTF-8, numbers formatted as in Python, booleans as in JSON.

    Raises:
        ValueError: the value has another type. The message says which and how to fix it.
    """
    if isinstance(value, str):
        return require_utf8(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise ValueError("bytes that are not UTF-8; store text") from error
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
            raise ValueError(f"{name}; write a number or a word, or remove the row")
        return str(value)
    kinds = {
        list: "a list; join it into one text",
        dict: "an object; write it as text",
        type(None): "null; write a value, or remove the row",
    }
    raise ValueError(kinds.get(type(value), f"a value of the type {type(value).__name__}; store it as text"))


def require_utf8(text: str) -> str:
    r"""Returns the text unchanged if it can be encoded in UTF-8.

    Raises:
        ValueError: the text contains half a surrogate pair, as in JSON's "\ud83d".
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start].encode("ascii", "backslashreplace").decode()
        raise ValueError(f"half a surrogate pair ({half}); write the complete character, or remove it") from error
    return text


def escape(literal: str) -> str:
    """Escapes a text so that a template shows it unchanged."""
    doubled = literal.replace("{", "{{").replace("}", "}}")
    return doubled.replace("[[", "[[[[").replace("]]", "]]]]")


@dataclass(frozen=True)
class _Part:
    """A literal text, a column, or an optional part with both.

    Attributes:
        source: as it is in the template.
        pieces: literal texts, each with the column that follows it or None.
        optional: whether it is left out where a column of it is empty.
    """

    source: str
    pieces: tuple[tuple[str, str | None], ...]
    optional: bool = False

    @property
    def columns(self) -> list[str]:
        return [name for _, name in self.pieces if name is not None]

    def render(self, row: Mapping[str, Any]) -> str:
        if self.optional and any(row.get(name) is None or not to_text(row[name]).strip() for name in self.columns):
            return ""
        return "".join(literal + ("" if name is None else to_text(row[name]).strip()) for literal, name in self.pieces)


# Not string.Formatter, for which a column's name ends at a colon, a dot or a bracket.
_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}]+)\}|\[\[\[\[|\]\]\]\]|\[\[|\]\]|[{}]")


@lru_cache(maxsize=64)
def _parts(template: str) -> tuple[_Part, ...]:
    """The parts of a template.

    Raises:
        InputError: the template is malformed.
    """
    parts: list[_Part] = []
    optional: list[tuple[str, str | None]] | None = None  # the pieces of the optional part that is open
    literal, start, position = "", 0, 0
    for match in _TOKEN.finditer(template):
        mark, name = match.group(), match["name"]
        literal += template[position : match.start()]
        position = match.end()
        if mark in ("{{", "}}", "[[[[", "]]]]"):
            literal += mark[: len(mark) // 2]
            continue
        if mark in ("{", "}"):
            raise InputError(f"data.text_template: single {mark!r} at character {match.start() + 1}; write a literal brace twice")
        if optional is None:
            if mark == "]]":
                raise InputError("data.text_template: ]] without [[ before it; write literal brackets twice")
            if literal:
                parts.append(_Part(template[start : match.start()], ((literal, None),)))
            start = match.start()
            if mark == "[[":
                optional = []
            else:
                parts.append(_Part(mark, (("", name),)))
                start = position
        elif mark == "[[":
            break
        else:
            optional.append((literal, name))
            if mark == "]]":
                if all(column is None for _, column in optional):
                    raise InputError("data.text_template: a part in double brackets, [[...]], needs a column in it")
                parts.append(_Part(template[start:position], tuple(optional), optional=True))
                optional, start = None, position
        literal = ""
    if optional is not None:
        raise InputError("data.text_template: a part in double brackets is not closed by ]]")
    if literal := literal + template[position:]:
        parts.append(_Part(template[start:], ((literal, None),)))
    return tuple(parts)
