"""The grammar that an answer cannot leave: that of `response_format`, of a function that must be called, or the model's own."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from math import lcm
from typing import Any

from tools.serve.generation.requests import ChatRequest, NamedTool, ResponseFormat
from tools.serve.responses import RequestError
from tools.serve.tasks import Task
from tunepress.config.evaluate import Guidance
from tunepress.core.errors import InputError
from tunepress.inference.guidance import answer_rule, framed, grammar, json_rule, quoted
from tunepress.inference.tool_calls import ToolCall, parse_tool_calls
from tunepress.text.chat_prompt import MARKER

Tools = list[dict[str, Any]]
MOST_IN_SCHEMA = 1 << 16  # a grammar of llguidance has no more symbols


def guidance(task: Task, body: ChatRequest) -> tuple[str | None, str | None]:
    """Returns the grammar of an answer, and the field of the request that it is from.

    Raises:
        RequestError: the model does not write such answers.
    """
    if body.offered and body.tool_choice not in (None, "auto"):
        return call_grammar(task, allowed(body.offered, body.tool_choice)), "tool_choice"
    if body.response_format and body.constrained:
        return format_grammar(task, body.response_format), "response_format"
    return task.prompt.guidance, None


def format_grammar(task: Task, response_format: ResponseFormat) -> str:
    """The grammar of answers in a format.

    Raises:
        RequestError: it is labels and the model has none, or the model does not write an answer alone.
    """
    if response_format.json_schema:
        check_numbers(response_format.json_schema.content, "response_format")
        rule = json_rule(response_format.json_schema.content)
    elif response_format.type == "json_object":
        rule = json_rule({"type": "object"})
    elif task.prompt.labels:
        rule = answer_rule(Guidance.labels, task.prompt)
    else:
        reason = "response_format: this model answers in free text and has no labels"
        raise RequestError(400, reason, "response_format", "no_labels")
    try:
        frame = task.chat_prompt.answer_frame()
    except InputError as error:
        raise RequestError(400, f"response_format: {error}", "response_format") from error
    if frame is None:
        raise RequestError(400, "response_format: this model writes other columns after its answer", "response_format")
    return framed(rule, frame, task.eos_tokens)


def allowed(tools: Tools, choice: object) -> Tools:
    """The functions of which an answer must call one.

    Raises:
        RequestError: the choice names none of them.
    """
    if not isinstance(choice, NamedTool):
        return tools
    named = [tool for tool in tools if _function(tool)["name"] == choice.function.name]
    if not named:
        raise RequestError(400, f"tool_choice: tools has no function {choice.function.name!r}", "tool_choice")
    return named


def call_grammar(task: Task, tools: Tools) -> str:
    """The grammar of a call of one of several functions, as the model's chat template writes it.

    Raises:
        RequestError: the template does not write calls as JSON with a name and arguments, or `parameters` is not a schema of one.
    """
    call = {"type": "function", "function": {"name": MARKER, "arguments": {MARKER: 0}}}
    try:
        text = task.chat_prompt.written({"role": "assistant", "content": None, "tool_calls": [call]}, tools)
    except InputError:
        text = ""
    for end in task.eos_tokens:
        text = text.partition(end)[0]
    parts = re.split(rf'\{{\s*"{MARKER}"\s*:\s*0\s*\}}', text)
    if parse_tool_calls(text) != [ToolCall(MARKER, {MARKER: 0})] or len(parts) != 2:
        reason = "tool_choice: this model's chat template does not write calls as JSON; send auto or none"
        raise RequestError(400, reason, "tool_choice")
    return grammar(f"({' | '.join(_call_rule(_function(tool), (parts[0], parts[1])) for tool in tools)})")


def _call_rule(function: dict[str, Any], frame: tuple[str, str]) -> str:
    """A call in Lark. The arguments are a schema of their own, whose references begin at `parameters`.

    Args:
        function: to call.
        frame: what the template writes before and after the arguments, with MARKER for the name.
    """
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise RequestError(400, f"tools: the parameters of {function['name']!r} must be a JSON schema of an object", "tools")
    check_numbers(parameters, "tools")
    name = json.dumps(function["name"], ensure_ascii=False)[1:-1]
    before, after = (quoted(text.replace(MARKER, name)) for text in frame)
    return f"{before} {json_rule({**parameters, 'type': 'object'})} {after}"


def check_numbers(schema: dict[str, Any], param: str) -> None:
    """Checks the numbers on which the time for a grammar depends: llguidance would take minutes for large ones.

    Raises:
        RequestError: they are too large.
    """
    items = sum(map(int, _values(schema, ("minItems", "maxItems"))))
    multiple = lcm(*map(_digits, _values(schema, ("multipleOf",))))
    if items > MOST_IN_SCHEMA or multiple > MOST_IN_SCHEMA:
        name = "minItems and maxItems" if items > MOST_IN_SCHEMA else "multipleOf"
        raise RequestError(400, f"{param}: {name} of a schema must be at most {MOST_IN_SCHEMA} together", param)


def _values(value: Any, names: tuple[str, ...]) -> Iterator[int | float]:
    """The numbers of keywords, wherever they are in a schema."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, dict):
        yield from (value[name] for name in names if type(value.get(name)) in (int, float))
    for child in children:
        yield from _values(child, names)


def _digits(value: int | float) -> int:
    """The digits of a number without its zeros and point: 5 of 0.05."""
    return value if isinstance(value, int) else int("".join(map(str, Decimal(repr(value)).as_tuple().digits)))


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    function: dict[str, Any] = tool.get("function", tool)
    return function
