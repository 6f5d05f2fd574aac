"""Calls of functions in an answer, nasty answers included."""

import json
from typing import Any

import pytest

from tunepress.inference.tool_calls import ToolCall, equal_json, parse_tool_calls

STATUS = ToolCall("status", {"order": "LS-1"})
BLOCK = '<tool_call>{"name": "status", "arguments": {"order": "LS-1"}}</tool_call>'


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        ("Your order is packed.", []),
        ("", []),
        (BLOCK, [STATUS]),
        (f"One moment.\n{BLOCK} Thanks!", [STATUS]),
        (f"{BLOCK}\n{BLOCK}", [STATUS, STATUS]),
        (BLOCK.replace("{", " {\n", 1).replace("</", "\n</"), [STATUS]),
        (BLOCK.removesuffix("</tool_call>"), [STATUS]),
        (f"{BLOCK.removesuffix('</tool_call>')}\n{BLOCK}", [STATUS, STATUS]),
        ('{"arguments": {"order": "LS-1"}, "name": "status"}', [STATUS]),
        (' {"name": "status", "arguments": "{\\"order\\": \\"LS-1\\"}"}\n', [STATUS]),
        ('{"name": "status", "arguments": "LS-1"}', []),
        ('{"name": "status", "arguments": null}', []),
        ('{"name": "Anna", "age": 4}', []),
        ('{"name": 1, "arguments": {}}', []),
        ("[1, 2]", []),
        (f"{BLOCK[:30]}", [None]),
        ("<tool_call>", [None]),
        ("<tool_call></tool_call>", [None]),
        ("<tool_call>status(LS-1)</tool_call>", [None]),
        ('<tool_call>{"name": "status"}</tool_call>', [None]),
        ("<tool_call>[]</tool_call>", [None]),
        (BLOCK.replace("}}", "}}}"), [None]),
        (BLOCK.replace("}}", "}} and more"), [None]),
        (f"<tool_call>{{'name': 'status'}}</tool_call>{BLOCK}", [None, STATUS]),
        ("<tool_call>" * 3, [None] * 3),
        ("<tool_call>" + '{"name": "a", "arguments": {"b": ' + "[" * 100_000, [None]),
        ("[" * 100_000, []),
        ('<tool_call>{"name": "a", "arguments": {"n": ' + "9" * 5000 + "}}</tool_call>", [None]),
    ],
)
def test_the_calls_in_an_answer(answer: str, calls: list[ToolCall | None]) -> None:
    assert parse_tool_calls(answer) == calls


def test_an_argument_may_contain_the_markers() -> None:
    call = ToolCall("note", {"text": "</tool_call> then <tool_call>{}"})
    assert parse_tool_calls(f"<tool_call>{json.dumps(call._asdict())}</tool_call>") == [call]


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        (1, 1.0, True),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1.0}, True),
        (1, "1", False),
        (1, True, False),
        ([0], [False], False),
        (False, False, True),
        (None, False, False),
        (None, None, True),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ({"a": None}, {}, False),
        ({}, [], False),
        (2**53, 2**53 + 1, False),
        ("Größe", "größe", False),
    ],
)
def test_values_are_equal_as_json_values(first: Any, second: Any, equal: bool) -> None:
    assert equal_json(first, second) is equal
    assert equal_json(second, first) is equal
