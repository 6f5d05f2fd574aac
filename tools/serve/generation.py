"""POST /v1/completions and /v1/chat/completions: answers, whole or as server-sent events."""

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Protocol

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from tools.serve.client import while_connected
from tools.serve.door import door
from tools.serve.errors import RequestError
from tools.serve.question import End, FinishReason, Question
from tools.serve.replies import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChunkChoice,
    Completion,
    CompletionChoice,
    Said,
    Usage,
)
from tools.serve.requests import ChatRequest, CompletionRequest, Sampling
from tools.serve.service import Service
from tools.serve.worker import Asked, Job

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {}},
        "description": "The answer; in events with stream=true.",
    }
}


def router(service: Service) -> APIRouter:
    """The two routes."""
    routes = APIRouter(route_class=door(service))

    @routes.post("/v1/completions", response_model=Completion, responses=STREAM)
    async def complete(body: CompletionRequest, request: Request) -> Any:
        """Goes on from a text, which the model is given as it is."""
        service.check_model(body.model)
        most = body.max_tokens or service.max_tokens
        questions = [service.sampled(Question(text, "prompt", most), body) for text in body.prompt]
        form = CompletionForm(service.settings.name)
        asked = service.ask(questions)
        return await reply(asked, form, body, request)

    @routes.post("/v1/chat/completions", response_model=ChatCompletion, responses=STREAM)
    async def chat(body: ChatRequest, request: Request) -> Any:
        """Answers the last message."""
        service.check_model(body.model)
        most = body.max_completion_tokens or body.max_tokens or service.max_tokens
        said = service.conversation.render(body.messages)
        question = Question(said.prompt, "messages", most, from_template=said.from_template)
        form = ChatForm(service.settings.name)
        asked = service.ask([service.sampled(question, body)])
        return await reply(asked, form, body, request)

    return routes


async def reply(asked: Asked, form: "Form", body: Sampling, request: Request) -> BaseModel | Response:
    """The answers as the request wants them."""
    if body.stream:
        return await streamed(asked, form, body, request)
    return await whole(asked, form, request)


async def whole(asked: Asked, form: "Form", request: Request) -> BaseModel | Response:
    """All answers at once."""

    async def answers() -> BaseModel:
        found = [await answered(job) for job in asked.jobs]
        return form.whole([(text, end.finish_reason) for text, end in found], usage(asked))

    with asked:
        return await while_connected(request, answers())


async def answered(job: Job) -> tuple[str, End]:
    """The text of an answer, and how it ended."""
    pieces = [one async for one in job.pieces()]
    end = pieces[-1]
    assert isinstance(end, End)
    return "".join(one.text for one in pieces), end


async def streamed(asked: Asked, form: "Form", body: Sampling, request: Request) -> Response:
    """The answers as events, one prompt's after the other. What is wrong with the first question is still an HTTP status."""
    try:
        gone = await while_connected(request, asked.jobs[0].begun())
    except BaseException:
        asked.give_up()
        raise
    return gone or EventStream(asked, events(asked, form, bool(body.stream_options and body.stream_options.include_usage)))


async def events(asked: Asked, form: "Form", with_usage: bool) -> AsyncIterator[str]:
    """Server-sent events in OpenAI's order: pieces of text, the reason of each end, the usage where it is wanted, [DONE]."""
    try:
        for index, job in enumerate(asked.jobs):
            for opening in form.opening(index):
                yield event(opening)
            async for one in job.pieces():
                if one.text:
                    yield event(form.piece(index, one.text, None))
                if isinstance(one, End):
                    yield event(form.piece(index, "", one.finish_reason))
        if with_usage:
            yield event(form.last(usage(asked)))
        yield "data: [DONE]\n\n"
    except RequestError as refusal:  # the status is sent long ago
        yield event(json.dumps(refusal.body()))


def event(content: BaseModel | str) -> str:
    """One event."""
    return f"data: {content if isinstance(content, str) else content.model_dump_json()}\n\n"


def usage(asked: Asked) -> Usage:
    """Tokens of all prompts and answers of a request."""
    prompts, answers = (sum(getattr(job, name) for job in asked.jobs) for name in ("prompt_tokens", "completion_tokens"))
    return Usage(prompt_tokens=prompts, completion_tokens=answers, total_tokens=prompts + answers)


class EventStream(StreamingResponse):
    """Server-sent events; whoever stops to listen gives up the answers."""

    media_type = "text/event-stream"

    def __init__(self, asked: Asked, content: AsyncIterator[str]) -> None:
        super().__init__(content, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})  # nginx would collect them
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends them."""
        with self._asked:
            await super().__call__(scope, receive, send)


class Form(Protocol):
    """The shape that answers are given."""

    def whole(self, answers: list[tuple[str, FinishReason]], usage: Usage) -> BaseModel:
        """All answers in one."""

    def opening(self, index: int) -> list[BaseModel]:
        """What stands before the pieces of an answer."""

    def piece(self, index: int, text: str, finish: FinishReason | None) -> BaseModel:
        """A piece of an answer."""

    def last(self, usage: Usage) -> BaseModel:
        """What stands behind all answers."""


def head(kind: str, model: str) -> dict[str, Any]:
    """What all pieces of a request's answer have alike."""
    return {"id": f"{kind}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}


class CompletionForm:
    """That of /v1/completions."""

    def __init__(self, model: str) -> None:
        self._head = head("cmpl", model)

    def whole(self, answers: list[tuple[str, FinishReason]], usage: Usage) -> BaseModel:
        """All answers in one."""
        choices = [CompletionChoice(index=index, text=text, finish_reason=end) for index, (text, end) in enumerate(answers)]
        return Completion(**self._head, choices=choices, usage=usage)

    def opening(self, index: int) -> list[BaseModel]:
        """Nothing."""
        return []

    def piece(self, index: int, text: str, finish: FinishReason | None) -> BaseModel:
        """A piece of an answer."""
        return Completion(**self._head, choices=[CompletionChoice(index=index, text=text, finish_reason=finish)], usage=None)

    def last(self, usage: Usage) -> BaseModel:
        """The tokens alone."""
        return Completion(**self._head, choices=[], usage=usage)


class ChatForm:
    """That of /v1/chat/completions."""

    def __init__(self, model: str) -> None:
        self._head = head("chatcmpl", model)

    def whole(self, answers: list[tuple[str, FinishReason]], usage: Usage) -> BaseModel:
        """The one answer."""
        ((text, finish),) = answers
        return ChatCompletion(**self._head, choices=[ChatChoice(message=Said(content=text), finish_reason=finish)], usage=usage)

    def opening(self, index: int) -> list[BaseModel]:
        """Who speaks."""
        choice = ChunkChoice(delta={"role": "assistant", "content": ""}, finish_reason=None)
        return [ChatChunk(**self._head, choices=[choice], usage=None)]

    def piece(self, index: int, text: str, finish: FinishReason | None) -> BaseModel:
        """A piece of the answer."""
        choice = ChunkChoice(delta={"content": text} if text else {}, finish_reason=finish)
        return ChatChunk(**self._head, choices=[choice], usage=None)

    def last(self, usage: Usage) -> BaseModel:
        """The tokens alone."""
        return ChatChunk(**self._head, choices=[], usage=usage)
