"""What a model is asked with: a text, a row or messages, rendered as in training."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from tunepress.core.errors import InputError
from tunepress.text.chat_template import ChatTemplate, special_tokens
from tunepress.text.conversation import Message, Tools, normalize, segments
from tunepress.text.prompt import FILE_NAME, Prompt
from tunepress.text.template import column_names, escape

MARKER = "\ue000"  # a private-use character that no chat template contains


class ToolsError(InputError):
    """The tools are not functions, or the model cannot be shown them."""


@dataclass(frozen=True)
class RenderedChat:
    """A prompt.

    Attributes:
        prompt: the text.
        from_template: whether the chat template of the model folder wrote it, which may include the first token (BOS).
    """

    prompt: str
    from_template: bool


class ChatPrompt:
    """Renders what is asked: with the chat template if the model was trained with it, otherwise as the trained prompt.

    Args:
        folder: of the model, which may have no chat template.
        prompt: with which the model was trained.

    Raises:
        InputError: the chat template in prompt.json is not valid.
    """

    def __init__(self, folder: Path, prompt: Prompt) -> None:
        self._prompt = prompt
        self._conversations = prompt.prompt is None
        if self._conversations:
            variables = prompt.chat_template_kwargs
            try:
                template = ChatTemplate(prompt.chat_template or "", special_tokens(folder), prompt.chat_template_date, variables)
            except TemplateError as error:
                raise InputError(f"{folder / FILE_NAME}: chat_template is not valid ({error})") from error
            self._template: ChatTemplate | None = template
        else:
            self._template = ChatTemplate.read(folder, prompt.chat_template_date)
        self.trained = self._conversations or (self._template is not None and _is_in(prompt.prompt or "", self._template))

    def render_text(self, text: str) -> str:
        """The prompt for a text: the question itself, the columns of a row as a JSON object, or a JSON list of messages.

        Conversations are asked with the tools that all had in training. A model that was not trained in a chat template takes a
        list of messages as a text.

        Raises:
            InputError: the model cannot answer it.
        """
        if self.trained and (messages := _messages(text)):
            return self.render(messages, self._prompt.tools).prompt
        if not self._conversations:
            return self._prompt.render_prompt(self._prompt.parse_row(text))
        system = [{"role": "system", "content": self._prompt.system}] if self._prompt.system else []
        return self.render([*system, {"role": "user", "content": text}], self._prompt.tools).prompt

    def label_completions(self) -> tuple[str, ...] | None:
        """What the model learned to write for each label; None if that contains columns whose values are unknown here."""
        frame = self.answer_frame()
        return tuple(label.join(frame) for label in self._prompt.labels or ()) if frame else None

    def answer_frame(self) -> tuple[str, str] | None:
        """What the model learned to write before and after an answer; None if columns whose values are unknown here follow it."""
        if self._prompt.completion is None:
            text = self.written({"role": "assistant", "content": MARKER}, self._prompt.tools)
        else:
            columns = column_names(self._prompt.completion)
            if len(columns) > 1:
                return None
            text = self._prompt.render_completion({columns[0]: MARKER})
        before, _, after = text.partition(MARKER)
        return before, after

    def written(self, message: Message, tools: Tools | None) -> str:
        """What the model learned to write for a message of the assistant, in a chat template.

        Raises:
            InputError: the template cannot write it.
        """
        assert self._template
        messages = normalize([{"role": "user", "content": "?"}, message])
        return segments(messages, [1], self._template, tools)[-1]["text"]

    def render(self, messages: Sequence[Message], tools: Tools | None = None) -> RenderedChat:
        """The prompt that asks for the answer to `messages`.

        Raises:
            InputError: the model cannot answer them.
        """
        messages = normalize(list(messages))
        if messages[-1]["role"] not in ("user", "tool"):
            raise InputError("the last must be the user's, or the result of a tool")
        if self.trained and self._template:
            text = self._template.render(messages, tools=tools)
            if hidden := [name for name in map(_name, tools or ()) if name not in text]:
                raise ToolsError(f"the model's chat template does not show the tool {hidden[0]!r}; send no tools")
            return RenderedChat(text.removeprefix(self._prompt.bos_token), from_template=True)
        if len(messages) == 1 and not tools:
            row = self._prompt.parse_row(messages[0]["content"].strip())
            return RenderedChat(self._prompt.render_prompt(row), from_template=False)
        raise InputError(
            "this model was trained on single texts, not on conversations; send one message, the user's, "
            "or a whole prompt to /v1/completions"
        )


def _name(tool: dict[str, Any]) -> str:
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise ToolsError('a tool must be {"type": "function", "function": {"name": "...", ...}}')
    return name


def _messages(text: str) -> list[Message] | None:
    """The messages in a text that is a JSON list of them; None if it is anything else."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if value and all(isinstance(entry, dict) and "role" in entry for entry in value) else None


def _is_in(prompt_template: str, chat_template: ChatTemplate) -> bool:
    """Whether a prompt template is a user's message in a chat template, as tunepress/text/conversation.py makes it."""
    try:
        before, _, after = chat_template.render([{"role": "user", "content": MARKER}]).partition(MARKER)
    except InputError:
        return False
    bos = chat_template.special_tokens.get("bos_token", "")
    prefixes = {escape(before), escape(before.removeprefix(bos))}
    starts = any(prompt_template.startswith(prefix) for prefix in prefixes)
    return starts and prompt_template.endswith(escape(after)) and bool(before)
