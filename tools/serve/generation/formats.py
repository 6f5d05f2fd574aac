"""How the two routes represent answers, whole and as the chunks of a stream."""

import json
import time
import uuid
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from tools.serve.responses import Usage
from tools.serve.workers.jobs import Answer
from tools.serve.workers.messages import FinishReason, TokenLogprob, TokenLogprobs
from tunepress.inference.tool_calls import START, ToolCall, parse_tool_calls
from tunepress.text.template import require_utf8

ChatFinishReason = Literal["stop", "length", "tool_calls"]


class CompletionLogprobs(BaseModel):
    """Of each token: its text, its log-probability, those of the most likely ones, and the offset of its text in the answer."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """An answer or, in a stream, a part of one."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None


class Completion(BaseModel):
    """The answers to all prompts or, in a stream, a part of one answer."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None


class ChatLogprob(BaseModel):
    """A token; `bytes` is null for a part of a character."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatTokenLogprobs(ChatLogprob):
    top_logprobs: list[ChatLogprob]


class ChatLogprobs(BaseModel):
    content: list[ChatTokenLogprobs]
    refusal: None = None


class FunctionCall(BaseModel):
    name: str
    arguments: str


class ChatToolCall(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[ChatToolCall] | None = None


class ChatChoice(BaseModel):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChatChunkChoice(BaseModel):
    index: int
    delta: dict[Literal["role", "content", "tool_calls"], Any]
    logprobs: ChatLogprobs | None = None
    finish_reason: ChatFinishReason | None


class ChatChunk(BaseModel):
    """A part of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None


class Format(Protocol):
    """How the answers of a route are represented.

    Attributes:
        whole: whether a streamed answer is one chunk, because only its end shows what it is.
    """

    whole: bool

    def complete(self, answers: list[Answer], usage: Usage) -> BaseModel:
        """All answers in one object."""

    def opening(self, index: int) -> list[BaseModel]:
        """The chunks before the text of a streamed answer."""

    def chunk(self, index: int, part: Answer) -> BaseModel:
        """A part of a streamed answer, in which only the last has a finish_reason."""

    def usage_chunk(self, usage: Usage) -> BaseModel:
        """The chunk after all streamed answers."""


def common_fields(kind: str, model: str) -> dict[str, Any]:
    """The fields that all chunks of a response share."""
    return {"id": f"{kind}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}


class CompletionFormat:
    """The format of /v1/completions.

    Args:
        model: its name.
        top: number of the most likely tokens in the place of each.
    """

    whole = False

    def __init__(self, model: str, top: int) -> None:
        self._common, self._top = common_fields("cmpl", model), top

    def complete(self, answers: list[Answer], usage: Usage) -> BaseModel:
        return Completion(**self._common, choices=[self._choice(*numbered) for numbered in enumerate(answers)], usage=usage)

    def opening(self, index: int) -> list[BaseModel]:
        return []

    def chunk(self, index: int, part: Answer) -> BaseModel:
        return Completion(**self._common, choices=[self._choice(index, part)], usage=None)

    def usage_chunk(self, usage: Usage) -> BaseModel:
        return Completion(**self._common, choices=[], usage=usage)

    def _choice(self, index: int, part: Answer) -> CompletionChoice:
        logprobs = self._logprobs(part.logprobs) if part.logprobs else None
        return CompletionChoice(index=index, text=part.text, logprobs=logprobs, finish_reason=part.finish_reason)

    def _logprobs(self, tokens: list[TokenLogprobs]) -> CompletionLogprobs:
        return CompletionLogprobs(
            tokens=[token.chosen.text for token in tokens],
            token_logprobs=[token.chosen.logprob for token in tokens],
            top_logprobs=list(map(most_likely, tokens)) if self._top else None,
            text_offset=[token.offset for token in tokens],
        )


class ChatFormat:
    """The format of /v1/chat/completions.

    Args:
        model: its name.
        with_tools: whether an answer may call functions.
    """

    def __init__(self, model: str, with_tools: bool) -> None:
        self._common, self.whole = common_fields("chatcmpl", model), with_tools

    def complete(self, answers: list[Answer], usage: Usage) -> BaseModel:
        return ChatCompletion(**self._common, choices=[self._choice(*numbered) for numbered in enumerate(answers)], usage=usage)

    def opening(self, index: int) -> list[BaseModel]:
        choice = ChatChunkChoice(index=index, delta={"role": "assistant", "content": ""}, finish_reason=None)
        return [ChatChunk(**self._common, choices=[choice], usage=None)]

    def chunk(self, index: int, part: Answer) -> BaseModel:
        content, calls = self._parts(part)
        delta: dict[Literal["role", "content", "tool_calls"], Any] = {"content": content} if content else {}
        if calls:
            delta["tool_calls"] = [{"index": number, **call.model_dump()} for number, call in enumerate(calls)]
        finish = finish_reason(part, calls)
        choice = ChatChunkChoice(index=index, delta=delta, logprobs=chat_logprobs(part.logprobs), finish_reason=finish)
        return ChatChunk(**self._common, choices=[choice], usage=None)

    def usage_chunk(self, usage: Usage) -> BaseModel:
        return ChatChunk(**self._common, choices=[], usage=usage)

    def _choice(self, index: int, answer: Answer) -> ChatChoice:
        content, calls = self._parts(answer)
        finish = finish_reason(answer, calls)
        assert finish
        return ChatChoice(
            index=index,
            message=ChatMessage(content=content, tool_calls=calls),
            logprobs=chat_logprobs(answer.logprobs),
            finish_reason=finish,
        )

    def _parts(self, answer: Answer) -> tuple[str | None, list[ChatToolCall] | None]:
        """The text of an answer and its calls of functions. A call that is not valid JSON stays text."""
        calls = parse_tool_calls(answer.text) if self.whole else []
        valid = [call for call in calls if call]
        if not valid or len(valid) < len(calls):
            return answer.text, None
        try:
            written = list(map(tool_call, valid))
        except (ValueError, RecursionError):
            return answer.text, None
        before, mark, _ = answer.text.partition(START)
        return (before.strip() or None) if mark else None, written


def finish_reason(part: Answer, calls: list[ChatToolCall] | None) -> ChatFinishReason | None:
    """What ended an answer: with calls of functions, these."""
    return "tool_calls" if calls and part.finish_reason == "stop" else part.finish_reason


def tool_call(call: ToolCall) -> ChatToolCall:
    """A call in OpenAI's format.

    Raises:
        ValueError: it contains half a surrogate pair or NaN, which Python's json reads.
    """
    arguments = json.dumps(call.arguments, ensure_ascii=False, allow_nan=False)
    function = FunctionCall(name=require_utf8(call.name), arguments=require_utf8(arguments))
    return ChatToolCall(id=f"call_{uuid.uuid4().hex}", function=function)


def most_likely(token: TokenLogprobs) -> dict[str, float]:
    """The log-probabilities of the most likely tokens by their texts; of parts of characters, which look alike, the largest."""
    logprobs: dict[str, float] = {}
    for other in token.top:
        logprobs.setdefault(other.text, other.logprob)
    return logprobs


def chat_logprobs(tokens: list[TokenLogprobs]) -> ChatLogprobs | None:
    """The tokens of an answer, or of a part of one; None without any."""
    content = [
        ChatTokenLogprobs(**chat_logprob(token.chosen).model_dump(), top_logprobs=list(map(chat_logprob, token.top)))
        for token in tokens
    ]
    return ChatLogprobs(content=content) if content else None


def chat_logprob(token: TokenLogprob) -> ChatLogprob:
    part_of_a_character = "\ufffd" in token.text
    return ChatLogprob(token=token.text, logprob=token.logprob, bytes=None if part_of_a_character else list(token.text.encode()))
