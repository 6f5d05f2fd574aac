"""Conversations: chat messages as the prompt that the model was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.serve.errors import RequestError
from tools.serve.requests import Message
from tunepress.core.errors import InputError
from tunepress.text.chat_template import ChatTemplate
from tunepress.text.prompt import Prompt, escape

MARK = "\ue000"  # a private-use character, which no chat template holds


@dataclass(frozen=True)
class Rendered:
    """A prompt, and whether a chat template wrote it."""

    prompt: str
    from_template: bool


class Conversation:
    """How messages become a prompt: in the chat template where the model was trained in it, else in the trained prompt."""

    def __init__(self, folder: Path, prompt: Prompt) -> None:
        """Reads the template of a model folder, which may have none."""
        self._prompt = prompt
        self._template = ChatTemplate.read(folder, prompt.chat_template_date)
        self.trained = self._template is not None and surrounds(self._template, prompt.prompt)

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The prompt that asks for the answer to `messages`.

        Raises:
            RequestError: this model cannot be asked so.
        """
        if messages[-1].role != "user":
            raise RequestError(400, "messages: the last must be the user's", "messages")
        if self.trained and self._template:
            return Rendered(rendered(self._template, messages), from_template=True)
        if len(messages) > 1:
            raise RequestError(
                400,
                "messages: this model was trained on single texts, not on conversations; send one message, the user's, "
                "or a whole prompt to /v1/completions",
                "messages",
            )
        try:
            return Rendered(self._prompt.render_prompt(self._prompt.parse_row(messages[0].content.strip())), from_template=False)
        except InputError as error:
            raise RequestError(400, f"messages: {error}", "messages") from error


def rendered(template: ChatTemplate, messages: Sequence[Message]) -> str:
    """The messages in a chat template, and the opening of the answer.

    Raises:
        RequestError: the template does not take them.
    """
    try:
        return template.render([{"role": message.role, "content": message.content} for message in messages])
    except InputError as error:
        raise RequestError(400, f"messages: {error}", "messages") from error


def surrounds(template: ChatTemplate, trained: str) -> bool:
    """Whether a prompt's template is a user's words in a chat template, as tunepress/text/chat_template.py makes it."""
    try:
        before, _, after = template.render([{"role": "user", "content": MARK}]).partition(MARK)
    except InputError:
        return False
    bos = template.special_tokens.get("bos_token", "")
    openings = {escape(before), escape(before.removeprefix(bos))}
    return any(trained.startswith(opening) for opening in openings) and trained.endswith(escape(after)) and bool(before)
