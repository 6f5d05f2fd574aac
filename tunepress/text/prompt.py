"""The prompt: how a row becomes the model's input and its expected output.

`stages.prepare` makes it once. It is copied as prompt.json with the weights, from the adapter to the merged and the ONNX model,
so that training, evaluation and prediction cannot differ.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from string import Formatter
from typing import Any

from tunepress.core.errors import InputError
from tunepress.core.files import write_json

FILE_NAME = "prompt.json"
# The date for chat templates that print today's date, so that the same rows give the same bytes on any day. Meta's templates
# of Llama 3.1 and later use this date if the program provides no clock, so their models have been trained with it.
CHAT_TEMPLATE_DATE = "2024-07-26"


class Number(str):
    """A number of JSON as the text that the file has: 1.50 and not 1.5."""

    __slots__ = ()


JSON_NUMBERS: dict[str, Any] = {"parse_float": Number, "parse_int": Number}  # arguments of json.loads


@dataclass(frozen=True)
class Prompt:
    """Two templates in Python's format syntax. A name in braces is a column; it may contain spaces.

    Attributes:
        prompt: of the model's input.
        completion: of the expected output.
        labels: the possible answers, or None for free text.
        source_max_len: the maximum number of tokens of a training row.
        max_new_tokens: the number of tokens of the longest completion in the training rows, including the EOS token.
        eos_token_ids: the tokens that end an answer, in training, evaluation and the built model. Completions end with the
            first. Empty: those of the model folder.
        chat_template_date: the date, as YYYY-MM-DD, that chat templates print as today's date.
    """

    prompt: str
    completion: str
    labels: tuple[str, ...] | None
    source_max_len: int
    max_new_tokens: int = 0
    eos_token_ids: tuple[int, ...] = ()
    chat_template_date: str = CHAT_TEMPLATE_DATE

    @property
    def columns(self) -> list[str]:
        """The columns that the prompt needs."""
        return column_names(self.prompt)

    def render_prompt(self, row: Mapping[str, Any]) -> str:
        return render(self.prompt, row)

    def render_completion(self, row: Mapping[str, Any]) -> str:
        return render(self.completion, row)

    def parse_row(self, text: str) -> dict[str, Any]:
        """The columns of the prompt from a text: the text itself if there is one column, otherwise a JSON object.

        Raises:
            InputError: the text is not a JSON object with all columns, or it cannot be encoded in UTF-8.
        """
        columns = list(dict.fromkeys(self.columns))
        if len(columns) == 1:
            try:
                return {columns[0]: to_text(text)}
            except ValueError as error:
                raise InputError(f"the text contains {error}") from error
        try:
            row = json.loads(text, **JSON_NUMBERS)
            values = {column: row[column] for column in columns}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            example = ", ".join(f'"{column}": "..."' for column in columns)
            raise InputError(f"this model needs a JSON object {{{example}}}") from error
        for column, value in values.items():
            try:
                values[column] = to_text(value)
            except ValueError as error:
                raise InputError(f"column {column!r} contains {error}") from error
        return values

    def save(self, folder: Path) -> None:
        write_json(folder / FILE_NAME, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Prompt":
        """Reads prompt.json from `folder`.

        Raises:
            InputError: the file does not exist or is not valid.
        """
        path = folder / FILE_NAME
        if not path.exists():
            raise InputError(f"{path}: not found; models of this pipeline have it, run `make repro`")
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            labels, ends = fields.pop("labels"), fields.pop("eos_token_ids", ())
            prompt = cls(**fields, labels=None if labels is None else tuple(labels), eos_token_ids=tuple(ends))
            fixed_strftime(prompt.chat_template_date)
            return prompt
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{path}: not a prompt file ({error})") from error


def fixed_strftime(date: str) -> Callable[[str], str]:
    """The function `strftime_now` of chat templates, with a fixed date.

    Args:
        date: YYYY-MM-DD.

    Raises:
        ValueError: `date` is not a date.
    """
    return datetime.fromisoformat(date).strftime


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
    cut = 0
    for literal, name in _parts(text_template):
        cut += len(escape(literal))
        if name == completion_column:
            break
        cut += 0 if name is None else len(f"{{{name}}}")
    prompt, completion = text_template[:cut], text_template[cut:]
    if not column_names(prompt):
        raise InputError(f"data.text_template: has no column before {{{completion_column}}}, so every prompt would be the same")
    return prompt, completion


def column_names(template: str) -> list[str]:
    """The columns in a template, in order.

    Raises:
        InputError: the template is malformed.
    """
    return [name for _, name in _parts(template) if name is not None]


def render(template: str, row: Mapping[str, Any]) -> str:
    """Fills a template with the values of a row."""
    return "".join(literal + ("" if name is None else to_text(row[name])) for literal, name in _parts(template))


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
    return literal.replace("{", "{{").replace("}", "}}")


def _parts(template: str) -> list[tuple[str, str | None]]:
    # Formatter.parse and not str.format, which would take a dot or bracket in a column's name for an attribute access.
    try:
        parts = [(literal, name) for literal, name, _, _ in Formatter().parse(template)]
    except ValueError as error:
        raise InputError(f"data.text_template: {error} (write a literal brace twice)") from error
    if template != "".join(escape(literal) + ("" if name is None else f"{{{name}}}") for literal, name in parts):
        raise InputError("data.text_template: a column must be its plain name in braces, without ! or :")
    return parts
