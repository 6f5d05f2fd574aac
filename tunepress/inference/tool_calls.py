"""The function calls in an answer, and whether two of them are equal."""

import json
import re
from typing import Any, NamedTuple

START, END = "<tool_call>", "</tool_call>"  # the convention of Hermes and Qwen
_DECODER = json.JSONDecoder()


class ToolCall(NamedTuple):
    """A call of a function."""

    name: str
    arguments: dict[str, Any]


def parse_tool_calls(answer: str) -> list[ToolCall | None]:
    """The calls in an answer: its <tool_call> blocks, or the whole answer if it is one JSON object with name and arguments.

    Returns:
        The calls in their order; None for a block that is not the JSON of a call.
    """
    if START not in answer:
        call = parse_tool_call(answer)
        return [call] if call else []
    calls, position = [], answer.find(START)
    while position >= 0:
        call, position = _parse_block(answer, position + len(START))
        calls.append(call)
        position = answer.find(START, position)
    return calls


def parse_tool_call(text: str) -> ToolCall | None:
    """A text that is the JSON of a call, otherwise None. Its arguments may be an object or, as in OpenAI's format, its JSON."""
    return _to_call(_load(text))


def _parse_block(answer: str, begin: int) -> tuple[ToolCall | None, int]:
    """The call of a block and where it ends. An argument may contain a marker; the end marker may be missing."""
    begin += len(answer[begin:]) - len(answer[begin:].lstrip())
    try:
        value, end = _DECODER.raw_decode(answer, begin)
    except (ValueError, RecursionError):
        return None, begin
    closed = re.compile(rf"\s*(?:{END}|(?={START})|$)").match(answer, end)
    return _to_call(value) if closed else None, end


def _load(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _to_call(value: Any) -> ToolCall | None:
    if not isinstance(value, dict):
        return None
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters"))  # the latter in Llama 3's templates
    if isinstance(arguments, str):
        arguments = _load(arguments)
    return ToolCall(name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None


def equal_json(first: Any, second: Any) -> bool:
    """Whether two JSON values are equal: 1 equals 1.0 and the order of keys does not count, but true is not 1."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(equal_json(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(equal_json, first, second))
    return bool(first == second)
