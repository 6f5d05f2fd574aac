"""Formats: which one the rows of a file have, and how such a row becomes segments."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from stages.prepare.chat_templates import chat_template, end_of_turn, special_tokens
from stages.prepare.rows import Row
from tunepress.config.data import Data, Format, TrainOn
from tunepress.core.errors import InputError
from tunepress.text.conversation import Message, normalize, segments, wrap_in_chat_template
from tunepress.text.prompt import Prompt
from tunepress.text.segments import Segment, context, learned
from tunepress.text.template import Number, column_names, escape, optional_columns, split_template
from tunepress.text.tokenizer import Encoder

ROLES = {  # the names that files use for the roles of a chat template; data.roles adds to them
    "system": ["system", "developer"],
    "user": ["user", "human"],
    "assistant": ["assistant", "gpt", "model", "bot", "chatgpt", "function_call"],
    "tool": ["tool", "function", "observation"],
}
PROPERTIES = {Format.messages: {}, Format.sharegpt: {"role": "from", "content": "value"}}
COLUMNS = {Format.messages: "messages", Format.sharegpt: "conversations"}


class RowFormat(Protocol):
    """How rows become segments.

    Attributes:
        special_tokens: how many rows contain a special token of the tokenizer in their text, by token.
    """

    special_tokens: Counter[str]

    def segments(self, row: Row) -> list[Segment]:
        """Raises InputError if the row cannot be used."""

    def prompt(self) -> Prompt:
        """The prompt of all rows that have been converted."""


def detect(row: Row, data: Data) -> Format:
    """The format of a file or a dataset whose first row is `row`.

    Raises:
        InputError: its columns are those of no format.
    """
    of_dataset = next((dataset.format for dataset in data.datasets if dataset.name == row.name), None)
    if chosen := of_dataset or data.format:
        return chosen
    names = set(row.values)
    template = data.text_template
    if template is not None and set(column_names(template)) - optional_columns(template) <= names:
        return Format.template
    for format in (Format.messages, Format.sharegpt):
        if (data.field_messages or COLUMNS[format]) in names:
            messages = _parsed(row.values[data.field_messages or COLUMNS[format]])
            first = messages[0] if isinstance(messages, list) and messages and isinstance(messages[0], dict) else {}
            return Format.sharegpt if "from" in first else Format.messages
    if {"instruction", "output"} <= names:
        return Format.alpaca
    if {"prompt", "completion"} <= names:
        return Format.prompt_completion
    if template is not None:
        return Format.template  # the error names the column that is missing
    raise InputError(f"{row.source}: the columns {', '.join(row.values)} are those of no format; set data.text_template")


def row_format(first: Row, data: Data, encoder: Encoder) -> tuple[Format, RowFormat]:
    """The format of the rows, by the first of them, and what converts them."""
    format = detect(first, data)
    if format is Format.template:
        return format, TemplateRows(data, data.text_template, data.completion_column, encoder)
    if format is Format.prompt_completion and isinstance(_parsed(first.values.get("prompt")), str):
        return format, TemplateRows(data, "{prompt}{completion}", "completion", encoder)
    return format, ConversationRows(data, encoder)


class TemplateRows:
    """Rows whose columns fill a template."""

    def __init__(self, data: Data, text_template: str | None, completion_column: str, encoder: Encoder) -> None:
        if text_template is None:
            raise InputError("data.text_template: is needed with data.format=template, for example '{question}\\n{answer}'")
        prompt, completion = split_template(text_template, completion_column)
        self._data, self._answer = data, completion_column
        self._columns, self._optional = column_names(text_template), optional_columns(text_template)
        special = special_tokens(encoder)
        self._special = _pattern(special)
        eos_token_ids = tuple(encoder.eos_token_ids)
        if data.use_chat_template:
            chat = chat_template(data, encoder)
            prompt, completion = wrap_in_chat_template(prompt, completion, chat, special)
            prompt = prompt.removeprefix(escape(encoder.added_bos))
            eos_token_ids = end_of_turn(chat, encoder)
        labels = tuple(data.labels) if data.labels else None
        self._prompt = Prompt(prompt, completion, labels, data.source_max_len, eos_token_ids=eos_token_ids)
        self._asked = self._prompt.columns
        self.special_tokens: Counter[str] = Counter()

    def prompt(self) -> Prompt:
        return self._prompt

    def segments(self, row: Row) -> list[Segment]:
        texts = {}
        for column in self._columns:
            if column in self._optional and row.values.get(column) is None:
                texts[column] = ""
            else:
                texts[column] = row.text(column).strip()
        if not any(texts[column] for column in self._asked):
            raise InputError(f"{row.source}: {', '.join(map(repr, self._asked))} is empty")
        expected = texts[self._answer]
        if any("\0" in text for text in texts.values()):
            raise InputError(
                f"{row.source}: contains a NUL character, at which onnxruntime-genai's tokenizer stops reading; remove it"
            )
        if not expected:
            raise InputError(f"{row.source}: {self._answer!r} is empty")
        check_label(expected, row, self._data)
        self.special_tokens.update(_found(self._special, texts.values()))
        prompt = self._prompt
        return [context(prompt.render_prompt(texts)), learned(prompt.render_completion(texts), expected)]


class ConversationRows:
    """Rows that are conversations, rendered by a chat template. Each dataset may have another format."""

    def __init__(self, data: Data, encoder: Encoder) -> None:
        self._data = data
        self._formats: dict[str | None, Format] = {}
        self._template = chat_template(data, encoder)
        self._ends = special_tokens(encoder)
        self._special = _pattern(self._ends)
        self._bos = encoder.added_bos
        self._eos_token_ids = end_of_turn(self._template, encoder)
        self._roles = {name: role for role, names in ROLES.items() for name in names}
        self._roles |= {name: role for role, names in (data.roles or {}).items() for name in names}
        self._systems: set[str] = set()
        self._tools: set[str] = set()
        self.special_tokens: Counter[str] = Counter()

    def prompt(self) -> Prompt:
        (system,) = self._systems if len(self._systems) == 1 else ("",)
        (tools,) = self._tools if len(self._tools) == 1 else ("null",)
        data = self._data
        return Prompt(
            prompt=None,
            completion=None,
            labels=tuple(data.labels) if data.labels else None,
            source_max_len=data.source_max_len,
            eos_token_ids=self._eos_token_ids,
            chat_template=self._template.source,
            chat_template_kwargs=data.chat_template_kwargs,
            bos_token=self._bos,
            system=system or None,
            tools=json.loads(tools),
        )

    def segments(self, row: Row) -> list[Segment]:
        try:
            messages, first = self._messages(row)
            tools = _parsed(row.values.get("tools")) or None
            if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
                raise InputError("tools must be a list of objects")
            turns = [
                index
                for index, message in enumerate(messages)
                if index >= first and message["role"] in self._data.roles_to_train and message.get("weight", 1)
            ]
            if not turns:
                roles = " or ".join(self._data.roles_to_train)
                raise InputError(f"has no turn of the role {roles} to learn (data.roles_to_train, weight)")
            if self._data.train_on is TrainOn.last:
                turns = turns[-1:]
            result = segments(messages, turns, self._template, tools, self._ends)
        except InputError as error:
            raise InputError(f"{row.source}: {error}") from error
        if self._bos:
            result[0]["text"] = result[0]["text"].removeprefix(self._bos)
        for segment in result:
            if segment["train"]:
                check_label(segment["expected"], row, self._data)
        self._systems.add("\n".join(message["content"] for message in messages if message["role"] == "system"))
        self._tools.add(json.dumps(tools))
        self.special_tokens.update(_found(self._special, (message["content"] for message in messages)))
        return result

    def _messages(self, row: Row) -> tuple[list[Message], int]:
        """The messages of a row, and the index of the first that may be learned."""
        values, format = row.values, self._format(row)
        if format is Format.alpaca:
            return normalize(_alpaca(values)), 0
        if format is Format.prompt_completion:
            prompt = self._mapped(_parsed(values.get("prompt")), "prompt")
            completion = self._mapped(_parsed(values.get("completion")), "completion")
            return normalize([*prompt, *completion]), len(prompt)
        column = self._data.field_messages or COLUMNS[format]
        if column not in values:
            raise InputError(f"no column {column!r}; there are: {', '.join(values)} (data.field_messages, data.format)")
        messages = self._mapped(_parsed(values[column]), column, PROPERTIES[format])
        system = values.get("system")
        if format is Format.sharegpt and system:
            messages = [{"role": "system", "content": system}, *messages]
        return normalize(messages), 0

    def _format(self, row: Row) -> Format:
        """The format of the row's dataset."""
        if row.name not in self._formats:
            format = detect(row, self._data)
            if format is Format.template:
                raise InputError("fills a template, but other rows are conversations; one run can have only one of both")
            self._formats[row.name] = format
        return self._formats[row.name]

    def _mapped(self, messages: Any, column: str, properties: Mapping[str, str] | None = None) -> list[Any]:
        """The messages of a column with the names of keys and roles that chat templates use."""
        if not isinstance(messages, list):
            raise InputError(f"column {column!r} must hold a list of messages")
        result = []
        for message in messages:
            if isinstance(message, dict):
                message = dict(message)
                for name, source in {**(properties or {}), **(self._data.message_property_mappings or {})}.items():
                    if source in message:
                        message[name] = message.pop(source)
                role = message.get("role")
                if role not in self._roles:
                    known = ", ".join(sorted(self._roles))
                    raise InputError(f"role {role!r} is unknown; known are {known}; map it with data.roles")
                message["role"] = self._roles[role]
                if role == "function_call":
                    message |= {"content": None, "tool_calls": [_parsed(message["content"])]}
            result.append(message)
        return result


def check_label(expected: str, row: Row, data: Data) -> None:
    """Raises InputError if there are labels and the answer is not one of them."""
    if data.labels and expected not in data.labels:
        cure = "add it or correct the row; in YAML, numbers, true and false need quotes"
        raise InputError(f"{row.source}: label {expected!r} is not in data.labels ({', '.join(data.labels)}); {cure}")


def _pattern(tokens: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, tokens)) or r"(?!)")


def _found(pattern: re.Pattern[str], texts: Iterable[str]) -> set[str]:
    return {token for text in texts for token in pattern.findall(text)}


def _alpaca(values: dict[str, Any]) -> list[Message]:
    if missing := next((name for name in ("instruction", "output") if not values.get(name)), None):
        raise InputError(f"{missing!r} is empty or missing")
    system, history = values.get("system"), _parsed(values.get("history")) or []
    if not isinstance(history, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in history):
        raise InputError("history must be a list of pairs, each a question and its answer")
    texts = [
        *(text for pair in history for text in pair),
        "\n\n".join(filter(None, (values["instruction"], values.get("input")))),
    ]
    turns = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]
    opening = [{"role": "system", "content": system}] if system else []
    return [*opening, *turns, {"role": "assistant", "content": values["output"]}]


def _parsed(value: Any) -> Any:
    """A value of a row as plain data: JSON in a text (of CSV or Parquet) is parsed, numbers are numbers."""
    if isinstance(value, Number):
        return json.loads(value)
    if isinstance(value, str):
        if value.lstrip()[:1] in ("[", "{"):
            try:
                return json.loads(value)
            except ValueError:
                return value
        return value
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) and not isinstance(value, Number) else _parsed(value)
