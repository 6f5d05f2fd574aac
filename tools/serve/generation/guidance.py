"""The grammar that an answer cannot leave: that of `response_format`, of a function that must be called, or the model's own."""

import json
import re
from typing import Any

from tools.serve.generation.requests import ChatRequest, NamedTool, ResponseFormat
from tools.serve.responses import RequestError
from tools.serve.tasks import Task
from tunepress.config.evaluate import Guidance
from tunepress.core.errors import InputError
from tunepress.inference.guidance import answer_rule, framed, json_rule
from tunepress.inference.tool_calls import ToolCall, parse_tool_calls

Tools = list[dict[str, Any]]


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
        RequestError: the template does not write calls as JSON with a name and arguments.
    """
    name = _function(tools[0])["name"]
    call = {"type": "function", "function": {"name": name, "arguments": {}}}
    try:
        text = task.chat_prompt.written({"role": "assistant", "content": None, "tool_calls": [call]}, tools)
    except InputError:
        text = ""
    for end in task.eos_tokens:
        text = text.partition(end)[0]
    if parse_tool_calls(text) != [ToolCall(name, {})]:
        reason = "tool_choice: this model's chat template does not write calls as JSON; send auto or none"
        raise RequestError(400, reason, "tool_choice")
    begin, end_of_call, key = _json_of_call(text, name)
    schemas = [_call_schema(_function(tool), key) for tool in tools]
    rule = json_rule(schemas[0] if len(schemas) == 1 else {"anyOf": schemas})
    return framed(rule, (text[:begin], text[end_of_call:]), ())


def _json_of_call(text: str, name: str) -> tuple[int, int, str]:
    """Where the JSON of a call begins and ends, and its key of the arguments."""
    for match in re.finditer("{", text):
        try:
            value, end = json.JSONDecoder().raw_decode(text, match.start())
        except ValueError:
            continue
        if value.pop("name", None) == name:
            return match.start(), end, next(iter(value))
    raise AssertionError(text)


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    function: dict[str, Any] = tool.get("function", tool)
    return function


def _call_schema(function: dict[str, Any], key: str) -> dict[str, Any]:
    arguments = function.get("parameters") or {"type": "object"}
    properties = {"name": {"const": function["name"]}, key: arguments}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
