"""Conversations: messages in OpenAI's form, and the segments that they become.

To find what a turn teaches, the chat template renders the messages before the turn, with the beginning of an answer, and those up
to it. The difference is what the model has to write. So a template needs no `{% generation %}`.
"""

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from tunepress.core.errors import InputError
from tunepress.text.chat_template import ChatTemplate
from tunepress.text.segments import Segment, context, learned
from tunepress.text.template import escape, require_utf8

Message = dict[str, Any]
Tools = list[dict[str, Any]]

KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "weight"}
END_OF_THOUGHTS = "</think>"
LAST_ONLY = "set data.train_on=last, which learns the last turn of each conversation"


def normalize(messages: Any) -> list[Message]:
    """Messages in the form that chat templates expect: content is text, arguments of tool calls are objects.

    Raises:
        InputError: they are not messages, or contain something other than text.
    """
    if not isinstance(messages, list) or not messages:
        raise InputError("must be a list of messages, with at least one")
    return [_message(message, f"message {number}") for number, message in enumerate(messages, start=1)]


def segments(
    messages: Sequence[Message],
    turns: Sequence[int],
    template: ChatTemplate,
    tools: Tools | None = None,
    special_tokens: Collection[str] = (),
) -> list[Segment]:
    """The segments of a conversation, up to the last turn that is learned.

    Args:
        messages: from `normalize`.
        turns: the indices of the messages that are learned, in order.
        template: renders the messages.
        tools: that the conversation may use.
        special_tokens: texts of the tokens of which one ends a turn.

    Raises:
        InputError: the template rejects the conversation, leaves out a part of it, or renders its beginning differently later.
    """
    result: list[Segment] = []
    history = ""
    for index in turns:
        opening, text, expected = _turn(messages, index, template, tools, special_tokens)
        if not opening.startswith(history):
            raise InputError(f"the chat template changes earlier turns when later ones follow; {LAST_ONLY}")
        result += [context(opening[len(history) :]), learned(text, expected)]
        history = opening + text
        if index != turns[-1] and text == expected:
            raise InputError(f"the chat template ends the turn of message {index + 1} without a special token; {LAST_ONLY}")
    _check_shown(messages[: turns[-1] + 1], turns, history)
    return result


def wrap_in_chat_template(
    prompt: str, completion: str, template: ChatTemplate, special_tokens: Collection[str]
) -> tuple[str, str]:
    """Inserts two templates of a row into a chat template, as the user's and the assistant's message.

    Raises:
        InputError: the chat template rejects a question and its answer, or does not show each exactly once.
    """
    question, answer = "\ue000", "\ue001"  # private-use characters, which chat templates do not contain
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    try:
        opening, turn = segments(messages, [1], template, special_tokens=special_tokens)
    except InputError as error:
        reason = f"the base model's chat template fails on a question and its answer ({error})"
        raise InputError(f"data.use_chat_template: {reason}; set it to false") from error
    if opening["text"].count(question) != 1 or turn["text"].count(answer) != 1:
        raise InputError(
            "data.use_chat_template: the base model's chat template does not show a message exactly once, so it cannot be "
            "used as a prompt; set it to false and write the markup into data.text_template"
        )
    before, between = opening["text"].split(question)
    # what a template writes before every answer, such as empty thoughts, belongs to the prompt: an answer is the text alone
    markup, end = turn["text"].split(answer)
    return f"{escape(before)}{prompt.strip()}{escape(between + markup)}", f"{completion.strip()}{escape(end)}"


def _turn(
    messages: Sequence[Message],
    index: int,
    template: ChatTemplate,
    tools: Tools | None,
    special_tokens: Collection[str],
) -> tuple[str, str, str]:
    """The text before a turn, the turn's text with the token that ends it, and the turn's text alone."""
    message = messages[index]
    whole = template.render(messages[: index + 1], add_generation_prompt=False, tools=tools)
    content = _visible(message)
    if message["role"] == "assistant":
        opening = template.render(messages[:index], add_generation_prompt=True, tools=tools)
        if not whole.startswith(opening):
            raise InputError(
                f"the chat template begins the answer of message {index + 1} differently from how it asks for an answer; set "
                "data.chat_template or data.chat_template_kwargs so that both agree"
            )
    else:
        opening = whole[: max(whole.rfind(content), 0)]
    start = len(opening)
    begin = max(whole.find(content, start), start)
    special = re.compile("|".join(re.escape(token) for token in sorted(special_tokens, key=len, reverse=True)) or r"(?!)")
    if content and special.search(whole[start:begin]):
        raise InputError(
            "the chat template does not begin an answer when it is asked for one (add_generation_prompt); set data.chat_template"
        )
    calls = [whole.rfind(call["function"]["name"]) for call in message.get("tool_calls", ())]
    match = special.search(whole, max(begin + len(content), *calls, start))
    text = whole[start : match.end()] if match else whole[start:].rstrip()
    expected = (whole[start : match.start()] if match else text).strip()
    if not expected:
        raise InputError(f"message {index + 1} has no text to learn")
    return opening, text, expected


def _check_shown(messages: Sequence[Message], turns: Sequence[int], text: str) -> None:
    for number, message in enumerate(messages, start=1):
        missing = [] if _visible(message) in text else ["content"]
        missing += ["tool_calls" for call in message.get("tool_calls", ()) if call["function"]["name"] not in text]
        if number - 1 in turns and message.get("reasoning_content", "").strip() not in text:
            missing.append("reasoning_content")
        if missing:
            cure = "set data.chat_template to a template that does, such as conf/chat_templates/chatml.jinja"
            raise InputError(f"the chat template does not show the {missing[0]} of message {number} ({message['role']}); {cure}")


def _visible(message: Message) -> str:
    """The content of a message, of the assistant's without its thoughts, which templates leave out of the history."""
    content: str = message["content"]
    return content.rpartition(END_OF_THOUGHTS)[2].strip() if message["role"] == "assistant" else content.strip()


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise InputError(f"{where}: must be an object with role and content")
    result = {key: value for key, value in message.items() if key in KEYS and value is not None}
    if refused := next((key for key, value in message.items() if key not in KEYS and value not in (None, [], {}, "")), None):
        raise InputError(f"{where}: has {refused!r}, which is not used; remove it, or map it with data.message_property_mappings")
    result["content"] = _text(message.get("content"), where)
    if "reasoning_content" in result and not isinstance(result["reasoning_content"], str):
        raise InputError(f"{where}: reasoning_content must be text")
    if calls := result.pop("tool_calls", None):
        if not isinstance(calls, list):
            raise InputError(f"{where}: tool_calls must be a list")
        result["tool_calls"] = [_call(call, where) for call in calls]
    elif not result["content"].strip() and "reasoning_content" not in result:
        raise InputError(f"{where}: is empty")
    if result.get("weight", 1) not in (0, 1):
        raise InputError(f"{where}: weight must be 0 or 1, got {result['weight']!r}")
    return result


def _text(content: Any, where: str) -> str:
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None for part in content]
        if any(not isinstance(part, str) for part in parts):
            raise InputError(f'{where}: content must be text, or parts {{"type": "text", "text": "..."}} without images')
        content = "".join(map(str, parts))
    if not isinstance(content, str | None):
        raise InputError(f"{where}: content must be text, got {type(content).__name__}")
    try:
        text = require_utf8(content or "")
    except ValueError as error:
        raise InputError(f"{where}: contains {error}") from error
    if "\0" in text:
        raise InputError(f"{where}: contains a NUL character, at which onnxruntime-genai's tokenizer stops reading; remove it")
    return text


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise InputError(f"{where}: a tool call must be an object with a function's name and arguments")
    name, arguments = _text(function["name"], where), function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
            require_utf8(json.dumps(arguments, ensure_ascii=False, allow_nan=False))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: the arguments of {name} are not JSON ({error})") from error
    if not isinstance(arguments, dict):
        raise InputError(f"{where}: the arguments of {name} must be an object")
    identity = {"id": call["id"]} if "id" in call else {}
    return {**identity, "type": "function", "function": {"name": name, "arguments": arguments}}
