"""conf/chat_templates/chatml.jinja: in transformers and here, with tools, calls and results."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from tunepress.core.errors import InputError
from tunepress.text.chat_template import ChatTemplate

Messages = list[dict[str, Any]]
STATUS = {"name": "order_status", "description": "Größe <b>?", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": STATUS}]
CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "order_status", "arguments": {"order": "LS-1", "days": [1, 2.5]}}},
    {"id": "call_2", "type": "function", "function": {"name": "café", "arguments": {}}},
]
CONVERSATION: Messages = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Where is 'LS-1' & <it>?\n"},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "call_1", "content": '{"status": "packed"}'},
    {"role": "tool", "tool_call_id": "call_2", "content": "{}"},
    {"role": "assistant", "content": "It is packed.", "reasoning_content": "packed means soon"},
    {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "now?"}]},
    {"role": "assistant", "content": "I look again.", "tool_calls": CALLS[1:]},
]
EXPECTED = """<|im_start|>system
Be brief.

Tools:
{"name": "order_status", "description": "Größe <b>?", "parameters": {"type": "object", "properties": {}}}
To use one, write <tool_call>{"name": ..., "arguments": {...}}</tool_call><|im_end|>
<|im_start|>user
 Where is 'LS-1' & <it>?
<|im_end|>
<|im_start|>assistant
<tool_call>{"name": "order_status", "arguments": {"order": "LS-1", "days": [1, 2.5]}}</tool_call>
<tool_call>{"name": "café", "arguments": {}}</tool_call><|im_end|>
<|im_start|>tool
{"status": "packed"}<|im_end|>
<|im_start|>tool
{}<|im_end|>
<|im_start|>assistant
<think>
packed means soon
</think>

It is packed.<|im_end|>
<|im_start|>user
And now?<|im_end|>
<|im_start|>assistant
I look again.
<tool_call>{"name": "café", "arguments": {}}</tool_call><|im_end|>
"""


@pytest.fixture(scope="module")
def source(root: Path) -> str:
    return (root / "conf/chat_templates/chatml.jinja").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chatml(source: str) -> ChatTemplate:
    return ChatTemplate(source, {})


def test_a_conversation_with_calls_and_results(chatml: ChatTemplate) -> None:
    assert chatml.render(CONVERSATION, add_generation_prompt=False, tools=TOOLS) == EXPECTED


@pytest.mark.parametrize("tools", [None, [], TOOLS, [STATUS]])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_transformers_renders_the_same(
    source: str, chatml: ChatTemplate, tools: Messages | None, first: int, add_generation_prompt: bool
) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()))
    tokenizer.chat_template = source
    for end in range(first + 1, len(CONVERSATION) + 1):
        messages = CONVERSATION[first:end]
        theirs = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=add_generation_prompt)
        assert chatml.render(messages, add_generation_prompt, tools) == theirs


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("first", [0, 1])
def test_each_prefix_of_a_conversation_is_a_prefix_of_the_whole(chatml: ChatTemplate, tools: Messages | None, first: int) -> None:
    messages = CONVERSATION[first:]
    whole = chatml.render(messages, add_generation_prompt=False, tools=tools)
    for end, following in enumerate(messages):
        before = chatml.render(messages[:end], following["role"] == "assistant", tools) if end else ""
        assert whole.startswith(before)


def test_arguments_as_text_and_as_an_object_render_the_same(chatml: ChatTemplate) -> None:
    as_text = [deepcopy(message) for message in CONVERSATION]
    for message in as_text:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    assert chatml.render(as_text, tools=TOOLS) == chatml.render(CONVERSATION, tools=TOOLS)


def test_a_call_without_the_wrapper_function_renders_the_same(chatml: ChatTemplate) -> None:
    calls = [call["function"] for call in CALLS]
    messages = [*CONVERSATION[:2], {"role": "assistant", "tool_calls": calls}]
    assert chatml.render(messages) == chatml.render(CONVERSATION[:3])


def test_tools_without_a_system_message_have_a_turn_of_their_own(chatml: ChatTemplate) -> None:
    text = chatml.render([{"role": "user", "content": "Hi"}], tools=[STATUS])
    assert text.startswith("<|im_start|>system\nTools:\n{")
    assert text.endswith("</tool_call><|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "human", "content": "Hi"}, "must be system, user, assistant or tool, got human"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "must be text, got image_url"),
    ],
)
def test_what_cannot_be_rendered_is_an_error(chatml: ChatTemplate, message: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        chatml.render([message])
