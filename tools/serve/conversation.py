"""Conversations: chat messages as the prompt that the model was trained on."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stages.lib.edge.errors import InputError, one_line
from stages.lib.prompt import Prompt, escape
from tools.serve.errors import RequestError
from tools.serve.requests import Message

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
        self._template = ChatTemplate.read(folder)
        self.trained = self._template is not None and self._template.surrounds(prompt.prompt)

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The prompt that asks for the answer to `messages`.

        Raises:
            RequestError: this model cannot be asked so.
        """
        if messages[-1].role != "user":
            raise RequestError(400, "messages: the last must be the user's", "messages")
        if self.trained and self._template:
            return Rendered(self._template.render(messages), from_template=True)
        if len(messages) > 1:
            raise RequestError(
                400,
                "messages: this model was trained on single texts, not on conversations; send one message, the user's, "
                "or a whole prompt to /v1/completions",
                "messages",
            )
        try:
            return Rendered(self._prompt.render_prompt(self._prompt.row_of(messages[0].content.strip())), from_template=False)
        except InputError as error:
            raise RequestError(400, f"messages: {error}", "messages") from error


class Generation(Extension):
    """`{% generation %}`, by which a template marks for training what the assistant says: here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What stands between the two tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A chat template as transformers renders it: in a sandbox, and with what it hands to templates."""

    def __init__(self, source: str, special_tokens: dict[str, str]) -> None:
        """Compiles a template.

        Raises:
            TemplateError: it is none.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols], autoescape=False
        )
        environment.filters["tojson"] = to_json
        environment.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
        self._template = environment.from_string(source)
        self._special_tokens = special_tokens

    @classmethod
    def read(cls, folder: Path) -> "ChatTemplate | None":
        """The template of a model folder: its own file, or that in tokenizer_config.json, where there is one that can be read."""
        config = folder / "tokenizer_config.json"
        settings: dict[str, Any] = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
        path = folder / "chat_template.jinja"
        source = path.read_text(encoding="utf-8") if path.exists() else settings.get("chat_template")
        if not isinstance(source, str):
            return None
        tokens = {name: value for name, value in settings.items() if name.endswith("_token") and value}
        try:
            return cls(source, {name: value if isinstance(value, str) else value["content"] for name, value in tokens.items()})
        except TemplateError:
            return None

    def render(self, messages: Sequence[Message]) -> str:
        """The messages, and the opening of the answer.

        Raises:
            RequestError: the template does not take them.
        """
        said = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self._template.render(
                messages=said, tools=None, documents=None, add_generation_prompt=True, **self._special_tokens
            )
        except (TemplateError, TypeError, ValueError) as error:
            reason = f"messages: the model's chat template refuses them ({one_line(error)})"
            raise RequestError(400, reason, "messages") from error

    def surrounds(self, trained: str) -> bool:
        """Whether a prompt's template is a user's words in this one, as stages/lib/chat_template.py makes it."""
        try:
            before, _, after = self.render([Message(role="user", content=MARK)]).partition(MARK)
        except RequestError:
            return False
        bos = self._special_tokens.get("bos_token", "")
        openings = {escape(before), escape(before.removeprefix(bos))}
        return any(trained.startswith(opening) for opening in openings) and trained.endswith(escape(after)) and bool(before)


def raise_exception(reason: str) -> str:
    """How a template refuses messages."""
    raise TemplateError(reason)


def strftime_now(form: str) -> str:
    """Today, as a template wants it."""
    return datetime.datetime.now().strftime(form)


def to_json(value: Any, **options: Any) -> str:
    """JSON as it is: jinja2's own would write < and > for HTML."""
    return json.dumps(value, ensure_ascii=False, **options)
