"""The prompt: how a row becomes the model's input and its expected output.

`stages.prepare` makes it once. It is copied as prompt.json with the weights, from the adapter to the merged and the ONNX model,
so that training, evaluation and prediction cannot differ.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tunepress.core.errors import InputError
from tunepress.core.files import write_json
from tunepress.text.template import JSON_NUMBERS, column_names, render, to_text

FILE_NAME = "prompt.json"
# The date for chat templates that print today's date, so that the same rows give the same bytes on any day. Meta's templates
# of Llama 3.1 and later use this date if the program provides no clock, so their models have been trained with it.
CHAT_TEMPLATE_DATE = "2024-07-26"
OF_CONVERSATIONS = {"chat_template", "chat_template_kwargs", "bos_token", "system", "tools"}
OF_BUILT_MODELS = {"temperature", "abstain_below", "guidance"}


@dataclass(frozen=True)
class Prompt:
    """How rows became text: by two templates, or as conversations by a chat template.

    Attributes:
        prompt: template of the model's input; None for conversations.
        completion: template of the expected output; None for conversations.
        labels: the possible answers, or None for free text.
        source_max_len: the maximum number of tokens of a training row.
        max_new_tokens: the number of tokens of the longest completion in the training rows, including the EOS token.
        eos_token_ids: the tokens that end an answer, in training, evaluation and the built model. Completions end with the
            first. Empty: those of the model folder.
        chat_template_date: the date, as YYYY-MM-DD, that chat templates print as today's date.
        chat_template: of conversations, in Jinja.
        chat_template_kwargs: variables of the chat template, such as enable_thinking.
        bos_token: the text that a rendered conversation must not begin with, because the tokenizer adds the token.
        system: the system message of all conversations if they have the same; a text without messages is asked with it.
        tools: the tools of all conversations if they have the same.
        temperature: of a built model, divides the log-probabilities of labels; None: it was not calibrated.
        abstain_below: of a built model, the probability of the most likely label below which it gives none; None: it always does.
        guidance: of a built model, the grammar that its answers cannot leave; None: they are free.
        json_schema: of the answers; None: they need not be JSON.
    """

    prompt: str | None
    completion: str | None
    labels: tuple[str, ...] | None
    source_max_len: int
    max_new_tokens: int = 0
    eos_token_ids: tuple[int, ...] = ()
    chat_template_date: str = CHAT_TEMPLATE_DATE
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    bos_token: str = ""
    system: str | None = None
    tools: list[dict[str, Any]] | None = None
    temperature: float | None = None
    abstain_below: float | None = None
    guidance: str | None = None
    json_schema: dict[str, Any] | None = None

    @property
    def columns(self) -> list[str]:
        """The columns that the prompt needs; none for conversations."""
        return list(dict.fromkeys(column_names(self.prompt or "")))

    def render_prompt(self, row: Mapping[str, Any]) -> str:
        return render(self.prompt or "", row)

    def render_completion(self, row: Mapping[str, Any]) -> str:
        return render(self.completion or "", row)

    def parse_row(self, text: str) -> dict[str, Any]:
        """The columns of the prompt from a text: the text itself if there is one column, otherwise a JSON object.

        Raises:
            InputError: the text is not a JSON object with all columns, or it cannot be encoded in UTF-8.
        """
        columns = self.columns
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
        optional = OF_CONVERSATIONS | OF_BUILT_MODELS | {"json_schema"}
        write_json(folder / FILE_NAME, {name: value for name, value in asdict(self).items() if name not in optional or value})

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
