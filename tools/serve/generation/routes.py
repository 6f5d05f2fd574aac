"""The routes POST /v1/completions and /v1/chat/completions: answers, whole or as server-sent events."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from tools.serve.generation.formats import ChatCompletion, ChatFormat, Completion, CompletionFormat, Format
from tools.serve.generation.guidance import guidance
from tools.serve.generation.requests import LARGEST_SEED, ChatRequest, CompletionRequest, Sampling
from tools.serve.responses import RequestError
from tools.serve.routing import route_class, while_connected
from tools.serve.service import Service
from tools.serve.workers.jobs import Answer, Batch
from tools.serve.workers.messages import GenerationRequest
from tunepress.core.errors import InputError
from tunepress.text.chat_prompt import ChatPrompt, RenderedChat, ToolsError

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
        task = service.task(body.model)
        max_tokens = body.max_tokens or task.max_tokens
        prompts = [GenerationRequest(text, "prompt", max_tokens, task.tuning, top_logprobs=body.logprobs) for text in body.prompt]
        return await respond(service, prompts, CompletionFormat(task.name, body.logprobs or 0), body, request)

    @routes.post("/v1/chat/completions", response_model=ChatCompletion, responses=STREAM)
    async def chat(body: ChatRequest, request: Request) -> Any:
        """Answers the last message."""
        task = service.task(body.model)
        rendered = render(task.chat_prompt, body)
        grammar, guided_by = guidance(task, body)
        prompt = GenerationRequest(
            rendered.prompt,
            "messages",
            body.max_completion_tokens or body.max_tokens or task.max_tokens,
            task.tuning,
            grammar=grammar,
            guided_by=guided_by,
            top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            from_template=rendered.from_template,
        )
        return await respond(service, [prompt], ChatFormat(task.name, bool(body.offered)), body, request)

    return routes


def render(chat: ChatPrompt, body: ChatRequest) -> RenderedChat:
    """Returns the prompt that asks for the answer to the messages of a request.

    Raises:
        RequestError: the model cannot answer them.
    """
    try:
        return chat.render([message.model_dump(exclude_none=True) for message in body.messages], body.offered)
    except InputError as error:
        param = "tools" if isinstance(error, ToolsError) else "messages"
        raise RequestError(400, f"{param}: {error}", param) from error


async def respond(
    service: Service, prompts: list[GenerationRequest], form: Format, body: Sampling, request: Request
) -> BaseModel | Response:
    """Answers prompts, each `n` times."""
    batch = service.submit([sampled for prompt in prompts for sampled in samples(prompt, body)], body.n or 1)
    if body.stream:
        return await stream(batch, form, body, request)
    return await complete_all(batch, form, request)


def samples(prompt: GenerationRequest, body: Sampling) -> list[GenerationRequest]:
    """The requests for all answers to a prompt, each with its own seed."""
    sampled = replace(
        prompt,
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else body.top_p,
        stop=tuple(body.stop or ()),
    )
    seeds = [None if body.seed is None else (body.seed + number) % (LARGEST_SEED + 1) for number in range(body.n or 1)]
    return [replace(sampled, seed=seed) for seed in seeds]


async def complete_all(batch: Batch, form: Format, request: Request) -> BaseModel | Response:
    """Returns all answers at once."""

    async def answers() -> BaseModel:
        return form.complete([await job.answer() for job in batch.jobs], batch.usage)

    with batch:
        return await while_connected(request, answers())


async def stream(batch: Batch, form: Format, body: Sampling, request: Request) -> Response:
    """Returns the answers as events, one after the other. An error in the first one still sets the HTTP status."""
    try:
        closed = await while_connected(request, batch.jobs[0].started())
    except BaseException:
        batch.cancel()
        raise
    if closed:
        batch.cancel()
        return closed
    return EventStream(batch, events(batch, form, bool(body.stream_options and body.stream_options.include_usage)))


async def events(batch: Batch, form: Format, with_usage: bool) -> AsyncIterator[str]:
    """Server-sent events in OpenAI's order: pieces of text, each answer's finish reason, the usage if requested, [DONE]."""
    try:
        for index, job in enumerate(batch.jobs):
            for chunk in form.opening(index):
                yield event(chunk)
            part = Answer()
            async for token in job.tokens():
                part.add(token)
                if part.text and not form.whole:
                    yield event(form.chunk(index, replace(part, finish_reason=None)))
                    part = Answer(finish_reason=part.finish_reason)
            yield event(form.chunk(index, part))
        if with_usage:
            yield event(form.usage_chunk(batch.usage))
        yield "data: [DONE]\n\n"
    except RequestError as error:  # the status has already been sent
        yield event(json.dumps(error.body()))


def event(content: BaseModel | str) -> str:
    return f"data: {content if isinstance(content, str) else content.model_dump_json()}\n\n"


class EventStream(StreamingResponse):
    """Server-sent events; the answers are cancelled when the client stops listening."""

    media_type = "text/event-stream"

    def __init__(self, batch: Batch, content: AsyncIterator[str]) -> None:
        super().__init__(content, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})  # nginx would buffer them
        self._batch = batch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._batch:
            await super().__call__(scope, receive, send)
