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

from tools.serve.messages import Finished, FinishReason, GenerationRequest
from tools.serve.requests import ChatRequest, CompletionRequest, Sampling
from tools.serve.responses import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatMessage,
    Completion,
    CompletionChoice,
    RequestError,
    Usage,
)
from tools.serve.routing import route_class, while_connected
from tools.serve.service import Service, render_chat
from tools.serve.worker import Batch, Job

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {}},
        "description": "The answer; with stream=true as events.",
    }
}


def router(service: Service) -> APIRouter:
    routes = APIRouter(route_class=route_class(service))

    @routes.post("/v1/completions", response_model=Completion, responses=STREAM)
    async def complete(body: CompletionRequest, request: Request) -> Any:
        """Continues a text, which the model receives unchanged."""
        service.check_model(body.model)
        max_tokens = body.max_tokens or service.max_tokens
        prompts = [service.with_sampling(GenerationRequest(text, "prompt", max_tokens), body) for text in body.prompt]
        return await respond(service.submit(prompts), CompletionFormat(service.settings.name), body, request)

    @routes.post("/v1/chat/completions", response_model=ChatCompletion, responses=STREAM)
    async def chat(body: ChatRequest, request: Request) -> Any:
        """Answers the last message."""
        service.check_model(body.model)
        max_tokens = body.max_completion_tokens or body.max_tokens or service.max_tokens
        rendered = render_chat(service.chat_prompt, body)
        grammar = service.prompt.guidance
        prompt = GenerationRequest(rendered.prompt, "messages", max_tokens, grammar=grammar, from_template=rendered.from_template)
        batch = service.submit([service.with_sampling(prompt, body)])
        return await respond(batch, ChatFormat(service.settings.name), body, request)

    return routes


async def respond(batch: Batch, form: "Format", body: Sampling, request: Request) -> BaseModel | Response:
    if body.stream:
        return await stream(batch, form, body, request)
    return await complete_all(batch, form, request)


async def complete_all(batch: Batch, form: "Format", request: Request) -> BaseModel | Response:
    """Returns all answers at once."""

    async def answers() -> BaseModel:
        results = [await answer_of(job) for job in batch.jobs]
        return form.complete([(text, finished.finish_reason) for text, finished in results], usage(batch))

    with batch:
        return await while_connected(request, answers())


async def answer_of(job: Job) -> tuple[str, Finished]:
    """Waits for an answer; returns its text and its last event."""
    tokens = [token async for token in job.tokens()]
    last = tokens[-1]
    assert isinstance(last, Finished)
    return "".join(token.text for token in tokens), last


async def stream(batch: Batch, form: "Format", body: Sampling, request: Request) -> Response:
    """Returns the answers as events, one prompt's after the other. An error in the first prompt still sets the HTTP status."""
    try:
        closed = await while_connected(request, batch.jobs[0].started())
    except BaseException:
        batch.cancel()
        raise
    return closed or EventStream(batch, events(batch, form, bool(body.stream_options and body.stream_options.include_usage)))


async def events(batch: Batch, form: "Format", with_usage: bool) -> AsyncIterator[str]:
    """Server-sent events in OpenAI's order: pieces of text, each answer's finish reason, the usage if requested, [DONE]."""
    try:
        for index, job in enumerate(batch.jobs):
            for chunk in form.opening(index):
                yield event(chunk)
            async for token in job.tokens():
                if token.text:
                    yield event(form.chunk(index, token.text, None))
                if isinstance(token, Finished):
                    yield event(form.chunk(index, "", token.finish_reason))
        if with_usage:
            yield event(form.usage_chunk(usage(batch)))
        yield "data: [DONE]\n\n"
    except RequestError as error:  # the status has already been sent
        yield event(json.dumps(error.body()))


def event(content: BaseModel | str) -> str:
    return f"data: {content if isinstance(content, str) else content.model_dump_json()}\n\n"


def usage(batch: Batch) -> Usage:
    """The tokens of all prompts and answers of a request."""
    prompts, answers = (sum(getattr(job, name) for job in batch.jobs) for name in ("prompt_tokens", "completion_tokens"))
    return Usage(prompt_tokens=prompts, completion_tokens=answers, total_tokens=prompts + answers)


class EventStream(StreamingResponse):
    """Server-sent events; the answers are cancelled when the client stops listening."""

    media_type = "text/event-stream"

    def __init__(self, batch: Batch, content: AsyncIterator[str]) -> None:
        super().__init__(content, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})  # nginx would buffer them
        self._batch = batch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._batch:
            await super().__call__(scope, receive, send)


class Format(Protocol):
    """How the answers of a route are represented."""

    def complete(self, answers: list[tuple[str, FinishReason]], usage: Usage) -> BaseModel:
        """All answers in one object."""

    def opening(self, index: int) -> list[BaseModel]:
        """The chunks before the text of a streamed answer."""

    def chunk(self, index: int, text: str, finish: FinishReason | None) -> BaseModel:
        """A piece of a streamed answer."""

    def usage_chunk(self, usage: Usage) -> BaseModel:
        """The chunk after all streamed answers."""


def common_fields(kind: str, model: str) -> dict[str, Any]:
    """The fields that all chunks of a response share."""
    return {"id": f"{kind}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}


class CompletionFormat:
    """The format of /v1/completions."""

    def __init__(self, model: str) -> None:
        self._common = common_fields("cmpl", model)

    def complete(self, answers: list[tuple[str, FinishReason]], usage: Usage) -> BaseModel:
        choices = [CompletionChoice(index=index, text=text, finish_reason=end) for index, (text, end) in enumerate(answers)]
        return Completion(**self._common, choices=choices, usage=usage)

    def opening(self, index: int) -> list[BaseModel]:
        return []

    def chunk(self, index: int, text: str, finish: FinishReason | None) -> BaseModel:
        return Completion(**self._common, choices=[CompletionChoice(index=index, text=text, finish_reason=finish)], usage=None)

    def usage_chunk(self, usage: Usage) -> BaseModel:
        return Completion(**self._common, choices=[], usage=usage)


class ChatFormat:
    """The format of /v1/chat/completions."""

    def __init__(self, model: str) -> None:
        self._common = common_fields("chatcmpl", model)

    def complete(self, answers: list[tuple[str, FinishReason]], usage: Usage) -> BaseModel:
        ((text, finish),) = answers
        choice = ChatChoice(message=ChatMessage(content=text), finish_reason=finish)
        return ChatCompletion(**self._common, choices=[choice], usage=usage)

    def opening(self, index: int) -> list[BaseModel]:
        choice = ChatChunkChoice(delta={"role": "assistant", "content": ""}, finish_reason=None)
        return [ChatChunk(**self._common, choices=[choice], usage=None)]

    def chunk(self, index: int, text: str, finish: FinishReason | None) -> BaseModel:
        choice = ChatChunkChoice(delta={"content": text} if text else {}, finish_reason=finish)
        return ChatChunk(**self._common, choices=[choice], usage=None)

    def usage_chunk(self, usage: Usage) -> BaseModel:
        return ChatChunk(**self._common, choices=[], usage=usage)
