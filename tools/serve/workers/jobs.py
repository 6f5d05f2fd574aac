"""The prompts of a request as the worker answers them: what its routes wait for."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import TracebackType

from tools.serve.responses import RequestError, Usage
from tools.serve.workers.messages import (
    Failed,
    Finished,
    FinishReason,
    ModelEvent,
    ModelRequest,
    Scored,
    Started,
    Token,
    TokenLogprobs,
)


@dataclass
class Answer:
    """An answer, or a part of one.

    Attributes:
        text: of it.
        logprobs: of its tokens, if they are requested.
        finish_reason: what ended it; None for a part before the end.
        probabilities: of `GenerationRequest.scored`, at the end.
    """

    text: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    probabilities: tuple[float, ...] = ()

    def add(self, event: Token | Finished) -> None:
        """Appends what the model process has sent."""
        self.text += event.text
        if isinstance(event, Finished):
            self.finish_reason, self.probabilities = event.finish_reason, event.probabilities
        elif event.logprobs:
            self.logprobs.append(event.logprobs)


class Job:
    """A prompt in the queue or being answered.

    Attributes:
        request: what is sent to the model process.
        submitted_at: in seconds of time.monotonic().
        started_at: when it was sent to the model process.
        prompt_tokens: once the prompt has been read.
        completion_tokens: of the answer so far, including the token that ends it.
    """

    def __init__(self, request: ModelRequest, deadline: float, cancel: Callable[["Job"], None]) -> None:
        self.request, self._deadline, self._cancel = request, deadline, cancel
        self.submitted_at = self.started_at = time.monotonic()
        self.prompt_tokens = self.completion_tokens = 0
        self._started = self._done = False
        self._events: asyncio.Queue[ModelEvent | RequestError] = asyncio.Queue()

    def put(self, event: ModelEvent | RequestError) -> None:
        """Adds an event, or the error that ends the answer."""
        if isinstance(event, Started):
            self.prompt_tokens = event.prompt_tokens
        elif isinstance(event, Token):
            self.completion_tokens += 1
        self._events.put_nowait(event)

    async def started(self) -> None:
        """Returns when the prompt has been read.

        Raises:
            RequestError: it cannot be answered, or was not started in time.
        """
        if not self._started:
            self._started = isinstance(await self._next(), Started)

    async def tokens(self) -> AsyncIterator[Token | Finished]:
        """Yields the rest of the answer.

        Raises:
            RequestError: the model failed, or the request timed out.
        """
        await self.started()
        while not self._done:
            event = await self._next()
            if isinstance(event, Token | Finished):
                self._done = isinstance(event, Finished)
                yield event

    async def answer(self) -> Answer:
        """Waits for the whole answer.

        Raises:
            RequestError: as `tokens`.
        """
        answer = Answer()
        async for event in self.tokens():
            answer.add(event)
        return answer

    async def scores(self) -> tuple[tuple[float, ...], ...]:
        """Waits for the log-probabilities of a `ScoringRequest`.

        Raises:
            RequestError: as `tokens`.
        """
        await self.started()
        event = await self._next()
        assert isinstance(event, Scored)
        self._done = True
        return event.logprobs

    def cancel(self) -> None:
        """Called when nobody is waiting for the answer any more."""
        if not self._done:
            self._done = True
            self._cancel(self)

    async def _next(self) -> ModelEvent:
        try:
            async with asyncio.timeout_at(self._deadline):
                event = await self._events.get()
        except TimeoutError:
            raise self._timeout() from None
        if isinstance(event, RequestError):
            raise event
        if isinstance(event, Failed):
            self._done = True
            reason = f"{event.param} {event.reason}" if event.param else event.reason
            raise RequestError(400 if event.param else 500, reason, event.param, event.code)
        return event

    def _timeout(self) -> RequestError:
        if self._started:
            return RequestError(504, f"the request timed out after {self.completion_tokens} tokens of the answer", code="timeout")
        reason = "the request timed out before this prompt was started"
        return RequestError(503, reason, code="timeout", headers={"Retry-After": "1"})


class Batch:
    """The jobs of one HTTP request; at the end of a with-block, the unfinished ones are cancelled.

    Args:
        jobs: in the order of their prompts.
        samples: number of jobs for each prompt.
    """

    def __init__(self, jobs: list[Job], samples: int) -> None:
        self.jobs, self._samples = jobs, samples

    @property
    def usage(self) -> Usage:
        """The tokens of all prompts, each counted once, and of all answers."""
        prompts = sum(job.prompt_tokens for job in self.jobs[:: self._samples])
        answers = sum(job.completion_tokens for job in self.jobs)
        return Usage(prompt_tokens=prompts, completion_tokens=answers, total_tokens=prompts + answers)

    def __enter__(self) -> "Batch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cancel()

    def cancel(self) -> None:
        for job in self.jobs:
            job.cancel()
