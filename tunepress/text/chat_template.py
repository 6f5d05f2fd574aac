"""Chat templates: rendered as transformers does but with a fixed date.

The function of transformers does not accept a clock (it converts its keyword arguments to plain data), and serving runs without
transformers.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunepress.core.errors import InputError, one_line
from tunepress.text.prompt import CHAT_TEMPLATE_DATE, fixed_strftime

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

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str],
        date: str = CHAT_TEMPLATE_DATE,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """Compiles a template.

        Args:
            source: the template in Jinja.
            special_tokens: by name, such as bos_token.
            date: that the template prints as today's date, YYYY-MM-DD.
            variables: of the template, such as enable_thinking.

        Raises:
            TemplateError: the source is not a valid template.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols], autoescape=False
        )
        environment.filters["tojson"] = to_json
        environment.globals |= {"raise_exception": raise_exception, "strftime_now": fixed_strftime(date)}
        self.source = source
        self._template = environment.from_string(source)
        self.special_tokens = special_tokens
        self._variables = dict(variables or {})

    @classmethod
    def read(cls, folder: Path, date: str = CHAT_TEMPLATE_DATE) -> "ChatTemplate | None":
        """The template of a model folder, from its own file or tokenizer_config.json; None if there is no valid one."""
        settings = tokenizer_config(folder)
        path = folder / "chat_template.jinja"
        source = path.read_text(encoding="utf-8") if path.exists() else settings.get("chat_template")
        if not isinstance(source, str):
            return None
        try:
            return cls(source, special_tokens(folder), date)
        except TemplateError:
            return None

    def render(
        self, messages: Messages, add_generation_prompt: bool = True, tools: Sequence[dict[str, Any]] | None = None
    ) -> str:
        """Renders messages and the functions that the assistant may call, by default with the beginning of an answer.

        Raises:
            InputError: the template rejects the messages.
        """
        variables = {"tools": tools, "documents": None, **self.special_tokens, **self._variables}
        try:
            return self._template.render(messages=messages, add_generation_prompt=add_generation_prompt, **variables)
        except Exception as error:  # whatever the code in a template raises, such as IndexError
            raise InputError(f"the model's chat template rejects the messages ({one_line(error)})") from error


def for_model_folder(source: str, variables: Mapping[str, Any], date: str) -> str:
    """A template that renders as in training without being told the variables and the date."""
    source = re.sub(r"""strftime_now\((["'])((?:(?!\1)[^\\])*)\1\)""", lambda call: repr(fixed_strftime(date)(call[2])), source)
    names = filter(str.isidentifier, variables)
    defaults = [f"{{%- if {name} is not defined %}}{{%- set {name} = {variables[name]!r} %}}{{%- endif %}}" for name in names]
    return "".join(defaults) + source


def tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def special_tokens(folder: Path) -> dict[str, str]:
    """The special tokens of a model folder by name, such as bos_token."""
    tokens = {name: value for name, value in tokenizer_config(folder).items() if name.endswith("_token") and value}
    return {name: value if isinstance(value, str) else value["content"] for name, value in tokens.items()}


def raise_exception(reason: str) -> str:
    """The function with which a template rejects messages."""
    raise TemplateError(reason)


def to_json(value: Any, **options: Any) -> str:
    """The filter tojson without the escapes for HTML that jinja2's own filter writes."""
    return json.dumps(value, ensure_ascii=False, **options)
