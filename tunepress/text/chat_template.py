"""Chat templates: rendered as transformers does but with a fixed date, and applied to a prompt and a completion.

The function of transformers does not accept a clock (it converts its keyword arguments to plain data), and serving runs without
transformers.
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
from tunepress.text.prompt import CHAT_TEMPLATE_DATE, fixed_strftime
from tunepress.text.template import escape
from tunepress.text.tokenizer import Encoder

Messages = Sequence[dict[str, Any]]  # with the keys role and content, tool_calls where the assistant calls functions


class GenerationTag(Extension):
    """`{% generation %}`, with which a template marks the assistant's text for training. Here it has no effect."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The nodes between the two tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A chat template, rendered like in transformers: in a sandbox, with the same variables and functions."""

    def __init__(self, source: str, special_tokens: dict[str, str], date: str = CHAT_TEMPLATE_DATE) -> None:
        """Compiles a template.

        Args:
            source: the template in Jinja.
            special_tokens: by name, such as bos_token.
            date: that the template prints as today's date, YYYY-MM-DD.

        Raises:
            TemplateError: the source is not a valid template.
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
        """The template of a model folder, from its own file or tokenizer_config.json; None if there is no valid one."""
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

    def render(
        self, messages: Messages, add_generation_prompt: bool = True, tools: Sequence[dict[str, Any]] | None = None
    ) -> str:
        """Renders messages and the functions that the assistant may call, by default with the beginning of an answer.

        Raises:
            InputError: the template rejects the messages.
        """
        variables = {"tools": tools, "documents": None, "add_generation_prompt": add_generation_prompt, **self.special_tokens}
        try:
            return self._template.render(messages=messages, **variables)
        except (TemplateError, TypeError, ValueError) as error:
            raise InputError(f"the model's chat template rejects the messages ({one_line(error)})") from error


def wrap_in_chat_template(prompt: str, completion: str, encoder: Encoder, date: str = CHAT_TEMPLATE_DATE) -> tuple[str, str]:
    """Inserts two templates into the model's chat template, as the user's and the assistant's message.

    Args:
        prompt: template of the prompt.
        completion: template of the completion.
        encoder: of a model with a chat template.
        date: that the chat template prints as today's date, YYYY-MM-DD.

    Returns:
        The templates of the prompt and the completion with the markup of the chat template.

    Raises:
        InputError: the chat template is not valid, rejects a question and its answer, or does not show each exactly once.
    """
    question, answer = "\ue000", "\ue001"  # private-use characters, which chat templates do not contain
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    tokenizer = encoder.tokenizer
    try:
        template = ChatTemplate(tokenizer.get_chat_template(), tokenizer.special_tokens_map, date)
        opening, conversation = template.render(messages[:1]), template.render(messages, add_generation_prompt=False)
    except (TemplateError, InputError) as error:
        reason = f"the base model's chat template fails on a question and its answer ({one_line(error)})"
        raise InputError(f"data.use_chat_template: {reason}; set it to false") from error
    if opening.count(question) != 1 or conversation.count(answer) != 1:
        raise InputError(
            "data.use_chat_template: the base model's chat template does not show a message exactly once, so it cannot be "
            "used as a prompt; set it to false and write the markup into data.text_template"
        )
    before, after = opening.split(question)
    ending = conversation.split(answer)[1].rstrip()
    chat_prompt = escape(before) + prompt.strip() + escape(after)
    bos = tokenizer.bos_token
    if bos and encoder.encode_prompt("")[:1] == [tokenizer.bos_token_id]:
        chat_prompt = chat_prompt.removeprefix(escape(bos))  # the tokenizer adds it again
    return chat_prompt, completion.strip() + escape(ending)


def raise_exception(reason: str) -> str:
    """The function with which a template rejects messages."""
    raise TemplateError(reason)


def to_json(value: Any, **options: Any) -> str:
    """The filter tojson without the escapes for HTML that jinja2's own filter writes."""
    return json.dumps(value, ensure_ascii=False, **options)
