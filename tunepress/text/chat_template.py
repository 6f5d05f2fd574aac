"""Chat templates: rendered as transformers does, on a fixed date, and as plain text around a prompt and a completion.

transformers' own function takes no clock (its keyword arguments are made plain data), and serving has no transformers.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunepress.core.errors import InputError, one_line
from tunepress.text.prompt import CHAT_TEMPLATE_DATE, escape, fixed_strftime
from tunepress.text.tokenizer import Encoder

Messages = Sequence[dict[str, str]]  # each with role and content


class GenerationTag(Extension):
    """`{% generation %}`, by which a template marks for training what the assistant says: here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What stands between the two tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A chat template as transformers renders it: in a sandbox, and with what it hands to templates."""

    def __init__(self, source: str, special_tokens: dict[str, str], date: str = CHAT_TEMPLATE_DATE) -> None:
        """Compiles a template.

        Args:
            source: in Jinja.
            special_tokens: by the names that templates use.
            date: that the template prints as today's, YYYY-MM-DD.

        Raises:
            TemplateError: it is none.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols], autoescape=False
        )
        environment.filters["tojson"] = to_json
        environment.globals |= {"raise_exception": raise_exception, "strftime_now": fixed_strftime(date)}
        self._template = environment.from_string(source)
        self.special_tokens = special_tokens

    @classmethod
    def read(cls, folder: Path, date: str = CHAT_TEMPLATE_DATE) -> "ChatTemplate | None":
        """The template of a model folder: its own file, or that in tokenizer_config.json, where there is one that can be read."""
        config = folder / "tokenizer_config.json"
        settings: dict[str, Any] = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
        path = folder / "chat_template.jinja"
        source = path.read_text(encoding="utf-8") if path.exists() else settings.get("chat_template")
        if not isinstance(source, str):
            return None
        tokens = {name: value for name, value in settings.items() if name.endswith("_token") and value}
        texts = {name: value if isinstance(value, str) else value["content"] for name, value in tokens.items()}
        try:
            return cls(source, texts, date)
        except TemplateError:
            return None

    def render(self, messages: Messages, add_generation_prompt: bool = True) -> str:
        """The messages and, unless told otherwise, the opening of the answer.

        Raises:
            InputError: the template does not take them.
        """
        variables = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt, **self.special_tokens}
        try:
            return self._template.render(messages=messages, **variables)
        except (TemplateError, TypeError, ValueError) as error:
            raise InputError(f"the model's chat template refuses them ({one_line(error)})") from error


def wrap_in_chat_template(prompt: str, completion: str, encoder: Encoder, date: str = CHAT_TEMPLATE_DATE) -> tuple[str, str]:
    """Puts the two templates where the model's chat template puts the user's and the assistant's words.

    Args:
        prompt: template of the prompt.
        completion: template of the completion.
        encoder: the model's, with a chat template.
        date: YYYY-MM-DD, that the chat template prints as today's.

    Raises:
        InputError: the chat template cannot be read, refuses a question and its answer, or does not show each once.
    """
    asked, answered = "\ue000", "\ue001"  # private-use characters, which no chat template holds
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    tokenizer = encoder.tokenizer
    try:
        template = ChatTemplate(tokenizer.get_chat_template(), tokenizer.special_tokens_map, date)
        opening, whole = template.render(messages[:1]), template.render(messages, add_generation_prompt=False)
    except (TemplateError, InputError) as error:
        reason = f"the base model's chat template fails on a question and its answer ({one_line(error)})"
        raise InputError(f"data.use_chat_template: {reason}; set it to false") from error
    if opening.count(asked) != 1 or whole.count(answered) != 1:
        raise InputError(
            "data.use_chat_template: the base model's chat template does not show a message exactly once, so it cannot be made "
            "into a prompt; set it to false and write the markup into data.text_template"
        )
    before, after = opening.split(asked)
    ending = whole.split(answered)[1].rstrip()
    chat_prompt = escape(before) + prompt.strip() + escape(after)
    bos = tokenizer.bos_token
    if bos and encoder.prompt("")[:1] == [tokenizer.bos_token_id]:
        chat_prompt = chat_prompt.removeprefix(escape(bos))  # the tokenizer adds it again
    return chat_prompt, completion.strip() + escape(ending)


def raise_exception(reason: str) -> str:
    """How a template refuses messages."""
    raise TemplateError(reason)


def to_json(value: Any, **options: Any) -> str:
    """JSON as it is: jinja2's own would write < and > for HTML."""
    return json.dumps(value, ensure_ascii=False, **options)
