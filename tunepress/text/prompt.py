"""The prompt: how a row becomes the text a model is given and the text it should answer.

Made once, by `stages.prepare`, and carried beside the weights as prompt.json through adapter, merged and ONNX model,
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
# What a chat template that prints today's date gets instead, so that the same rows give the same bytes on any day. Meta's
# templates of Llama 3.1 and later fall back to this date where a program offers no clock, so their models have seen it.
CHAT_TEMPLATE_DATE = "2024-07-26"


@dataclass(frozen=True)
class Prompt:
    """Two templates in Python's format syntax; a name in braces is a column, which may hold spaces.

    Attributes:
        prompt: what the model is given.
        completion: what it learns to answer.
        labels: the answers there are, or None for free text.
        source_max_len: no training row had more tokens.
        max_new_tokens: the longest completion of the training rows in tokens, end of sequence included.
        eos_token_ids: the tokens that end an answer, in training, evaluation and the built model; the first is the one that
            completions end with. Empty: those of the model folder.
        chat_template_date: the date, as YYYY-MM-DD, that chat templates print as today's.
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
        """Columns that the prompt needs."""
        return column_names(self.prompt)

    def render_prompt(self, row: Mapping[str, Any]) -> str:
        """The text a model is given for `row`."""
        return render(self.prompt, row)

    def render_completion(self, row: Mapping[str, Any]) -> str:
        """The text a model should answer for `row`."""
        return render(self.completion, row)

    def row_of(self, text: str) -> dict[str, Any]:
        """The columns that a text fills: the only one there is, or those of a JSON object.

        Raises:
            InputError: there are several, and the text has not all of them; or UTF-8 cannot hold the text.
        """
        columns = list(dict.fromkeys(self.columns))
        if len(columns) == 1:
            try:
                return {columns[0]: to_text(text)}
            except ValueError as error:
                raise InputError(f"the text holds {error}") from error
        try:
            row = json.loads(text, parse_float=str, parse_int=str)  # as prepare reads JSON
            values = {column: row[column] for column in columns}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            wanted = ", ".join(f'"{column}": "..."' for column in columns)
            raise InputError(f"this model wants a JSON object {{{wanted}}}") from error
        for column, value in values.items():
            try:
                values[column] = to_text(value)
            except ValueError as error:
                raise InputError(f"column {column!r} holds {error}") from error
        return values

    def save(self, folder: Path) -> None:
        """Writes prompt.json to `folder`."""
        write_json(folder / FILE_NAME, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Prompt":
        """Reads prompt.json from `folder`.

        Raises:
            InputError: there is none, or it is not one.
        """
        path = folder / FILE_NAME
        if not path.exists():
            raise InputError(f"{path}: not found; a model made by this pipeline has it, run `make repro`")
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            labels, ends = fields.pop("labels"), fields.pop("eos_token_ids", ())
            prompt = cls(**fields, labels=None if labels is None else tuple(labels), eos_token_ids=tuple(ends))
            fixed_strftime(prompt.chat_template_date)
            return prompt
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{path}: not a prompt file ({error})") from error


def fixed_strftime(date: str) -> Callable[[str], str]:
    """The function `strftime_now` of chat templates, on a fixed date.

    Args:
        date: YYYY-MM-DD.

    Raises:
        ValueError: it is not a date.
    """
    return datetime.fromisoformat(date).strftime


def split_template(text_template: str, completion_column: str) -> tuple[str, str]:
    """Cuts a template of a whole row in two where the completion column begins.

    Raises:
        InputError: the template is malformed, names no prompt column, or not the completion column exactly once.
    """
    columns = column_names(text_template)
    if columns.count(completion_column) != 1:
        raise InputError(
            f"data.text_template: must name {{{completion_column}}} (data.completion_column) exactly once; "
            f"it names {', '.join(columns) or 'no column'}"
        )
    cut = 0
    for literal, name in _parts(text_template):
        cut += len(escape(literal))
        if name == completion_column:
            break
        cut += 0 if name is None else len(f"{{{name}}}")
    prompt, completion = text_template[:cut], text_template[cut:]
    if not column_names(prompt):
        raise InputError(f"data.text_template: names no column before {{{completion_column}}}, so every prompt is alike")
    return prompt, completion


def column_names(template: str) -> list[str]:
    """Columns that a template names, in order.

    Raises:
        InputError: its braces don't match.
    """
    return [name for _, name in _parts(template) if name is not None]


def render(template: str, row: Mapping[str, Any]) -> str:
    """The template with the row's values in place of the names."""
    return "".join(literal + ("" if name is None else to_text(row[name])) for literal, name in _parts(template))


def to_text(value: Any) -> str:
    """A value of a row as text: text as it is, bytes as UTF-8, a number as Python writes it, a truth value as JSON does.

    Raises:
        ValueError: it is something else. The message names what it is and the cure.
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
            raise ValueError(f"{name}; write a number or a word, or drop the row")
        return str(value)
    kinds = {
        list: "a list; join it to one text",
        dict: "an object; write it as one text",
        type(None): "null; fill it, or drop the row",
    }
    raise ValueError(kinds.get(type(value), f"a value of the type {type(value).__name__}; store it as text"))


def require_utf8(text: str) -> str:
    r"""A text that UTF-8 can hold.

    Raises:
        ValueError: half a surrogate pair is in it, as in JSON's "\ud83d".
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start].encode("ascii", "backslashreplace").decode()
        raise ValueError(f"half a surrogate pair ({half}); write the whole character, or drop it") from error
    return text


def escape(literal: str) -> str:
    """Text that a template shows as it is."""
    return literal.replace("{", "{{").replace("}", "}}")


def _parts(template: str) -> list[tuple[str, str | None]]:
    # Formatter.parse and not str.format: a dot or bracket in a column's name is no attribute access.
    try:
        parts = [(literal, name) for literal, name, _, _ in Formatter().parse(template)]
    except ValueError as error:
        raise InputError(f"data.text_template: {error} (a brace that is no column is written twice)") from error
    if template != "".join(escape(literal) + ("" if name is None else f"{{{name}}}") for literal, name in parts):
        raise InputError("data.text_template: a column is its bare name in braces, without ! or :")
    return parts
