"""The worker: the model's process seen from the one that speaks HTTP, and the questions that wait for it."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from types import TracebackType

from tools.serve.child import Child
from tools.serve.errors import RequestError
from tools.serve.metrics import Metrics
from tools.serve.question import Begun, End, Heard, Piece, Question, Ready, Refused, Stop, Stopped
from tools.serve.settings import Settings
from tunepress.core.errors import InputError, one_line

LONGEST_PAUSE = 30.0  # seconds before another start of the model's process; 1, 2, 4 ... before
LONGEST_LOAD = 600.0  # seconds for another start; the first has no limit, for whoever started it sees it wait
logger = logging.getLogger("uvicorn.error")


class Worker:
    """One process with one model, started again where it ends by itself. Used from one event loop, after `load`.

    Attributes:
        alive: whether the model is loaded.
        failure: why the process is not started again any more; None while it is.
    """

    def __init__(self, settings: Settings, max_length: int, metrics: Metrics) -> None:
        """Nothing is started yet.

        Args:
            settings: of the server.
            max_length: tokens that a prompt and its answer may have together.
            metrics: where is counted what happens.
        """
        self._settings, self._max_length, self._metrics = settings, max_length, metrics
        self._capacity = settings.queue
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._mean_seconds = 1.0  # of an answer
        self._child: Child | None = None
        self._refusal = ""  # why the process could not load the model
        self._failures = 0  # in a row
        self._overdue: asyncio.TimerHandle | None = None  # ends a process that does not load the model
        self.alive = False
        self.failure: str | None = None

    def load(self) -> None:
        """Starts the process and waits for the model.

        Raises:
            InputError: it has none.
        """
        self._child = self._start()
        try:
            message = self._child.receive()
        except EOFError:
            reason = f"the model's process ended while it loaded the model ({self._child.exit})"
            raise InputError(reason) from None
        if isinstance(message, Refused):
            raise InputError(message.reason)
        assert isinstance(message, Ready)
        self.alive = True

    def listen(self) -> None:
        """Begins to hear what the process says, in the running event loop."""
        assert self._child
        self._child.listen(self._hear, self._mourn)

    @property
    def pid(self) -> int:
        """Of the model's process."""
        assert self._child
        return self._child.pid

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to answer."""
        return not (self._running or self._waiting)

    def ask(self, questions: Sequence[Question], deadline: float) -> "Asked":
        """Puts questions behind those that wait, all or none.

        Args:
            questions: of one request.
            deadline: when the last must have been answered, by the event loop's clock.

        Raises:
            RequestError: there is no room, or no model any more.
        """
        if not self.alive:
            raise self._ended("the model's process has ended and is being started again")
        free = self._capacity - len(self._waiting) + (self._running is None)
        if len(questions) > free:
            again = max(1, math.ceil(self._mean_seconds))
            reason = f"the queue is full: {len(self._waiting)} prompts wait, of {self._capacity}; try again in {again} s"
            raise RequestError(429, reason, code="queue_full", headers={"Retry-After": str(again)})
        jobs = [Job(question, deadline, self) for question in questions]
        self._waiting.extend(jobs)
        self._go_on()
        return Asked(jobs)

    def give_up(self, job: "Job") -> None:
        """Drops a question: at once where it waits, at the next token where it is being answered."""
        if job in self._waiting:
            self._waiting.remove(job)
        elif job is self._running:
            self._send(Stop())

    def give_up_all(self, refusal: RequestError) -> None:
        """Drops all questions and tells those who wait for the answers why."""
        for job in [*self._waiting, *([self._running] if self._running else [])]:
            job.hear(refusal)
            self.give_up(job)

    def end(self) -> None:
        """Ends the process, whatever it does."""
        if self._child:
            self._child.end()

    def _go_on(self) -> None:
        """Asks the next question if none is being answered."""
        if self._running is None and self._waiting:
            self._running = self._waiting.popleft()
            self._running.started = time.monotonic()
            self._send(self._running.question)

    def _start(self) -> Child:
        return Child(self._settings.model, self._max_length)

    def _send(self, message: Question | Stop) -> None:
        if self._child:
            self._child.send(message)

    def _hear(self, heard: Heard) -> None:
        job = self._running
        if job is None:  # it has been started again
            self.alive = isinstance(heard, Ready)
            self._refusal = heard.reason if isinstance(heard, Refused) else ""
            if self.alive:
                logger.info("the model is loaded again")
            return
        self._count(heard, job)
        job.hear(heard)
        if isinstance(heard, End | Stopped | Refused):
            seconds = time.monotonic() - job.started
            self._mean_seconds += (seconds - self._mean_seconds) / 10
            self._failures = 0
            self._running = None
            self._go_on()

    def _count(self, heard: Heard, job: "Job") -> None:
        if isinstance(heard, Begun):
            self._metrics.prompt_tokens.inc(heard.prompt_tokens)
        elif isinstance(heard, Piece):
            self._metrics.completion_tokens.inc()
            if job.completion_tokens == 0:
                self._metrics.time_to_first_token.observe(time.monotonic() - job.asked)
        elif isinstance(heard, Stopped):
            self._metrics.stopped.inc()

    def _mourn(self) -> None:
        """The process has ended: so it does when told to, and when it is killed or crashes, or cannot load the model."""
        assert self._child
        reason = self._refusal or f"the model's process has ended ({self._child.exit})"
        self.alive, self._refusal = False, ""
        if self._overdue:
            self._overdue.cancel()
        self._failures += 1
        self.give_up_all(self._ended(reason))
        self._running = None
        if self._failures > self._settings.restarts:
            self.failure = f"{reason}; {self._failures} times in a row without an answer in between (--restarts)"
            return
        pause = self._pause()
        logger.error("%s; it is started again in %g s", reason, pause)
        asyncio.get_running_loop().call_later(pause, self._restart)

    def _restart(self) -> None:
        self._metrics.restarts.inc()
        try:
            self._child = self._start()
        except OSError as error:  # no memory for it, or no number
            self._refusal = f"the model's process cannot be started ({one_line(error)})"
            self._mourn()
        else:
            self.listen()
            self._overdue = asyncio.get_running_loop().call_later(LONGEST_LOAD, self._too_late)

    def _too_late(self) -> None:
        if self._child and not self.alive:
            self._refusal = f"the model's process has not loaded the model in {LONGEST_LOAD:g} s"
            self._child.kill()

    def _pause(self) -> float:
        return float(min(LONGEST_PAUSE, 2 ** max(0, self._failures - 1)))

    def _ended(self, reason: str) -> RequestError:
        return RequestError(503, reason, code="model_ended", headers={"Retry-After": f"{math.ceil(self._pause())}"})


class Job:
    """A question on its way to an answer.

    Attributes:
        question: what is asked.
        asked: when, in seconds of time.monotonic().
        started: when its turn came.
        prompt_tokens: of the prompt, once it has been read.
        completion_tokens: of the answer so far, that which ends it included.
    """

    def __init__(self, question: Question, deadline: float, worker: Worker) -> None:
        self.question, self._deadline, self._worker = question, deadline, worker
        self.asked = self.started = time.monotonic()
        self.prompt_tokens = self.completion_tokens = 0
        self._begun = self._ended = False
        self._heard: asyncio.Queue[Heard | RequestError] = asyncio.Queue()

    def hear(self, heard: Heard | RequestError) -> None:
        """Takes what the model said, or why it says no more."""
        if isinstance(heard, Begun):
            self.prompt_tokens = heard.prompt_tokens
        elif isinstance(heard, Piece):
            self.completion_tokens += 1
        self._heard.put_nowait(heard)

    async def begun(self) -> None:
        """Returns when the prompt has been read.

        Raises:
            RequestError: it cannot be answered, or its turn did not come in time.
        """
        if not self._begun:
            self._begun = isinstance(await self._next(), Begun)

    async def pieces(self) -> AsyncIterator[Piece | End]:
        """What follows, up to the end.

        Raises:
            RequestError: the model failed, or the time is over.
        """
        await self.begun()
        while not self._ended:
            heard = await self._next()
            if isinstance(heard, Piece | End):
                self._ended = isinstance(heard, End)
                yield heard

    def give_up(self) -> None:
        """Nobody waits for the answer any more."""
        if not self._ended:
            self._ended = True
            self._worker.give_up(self)

    async def _next(self) -> Heard:
        try:
            async with asyncio.timeout_at(self._deadline):
                heard = await self._heard.get()
        except TimeoutError:
            raise self._late() from None
        if isinstance(heard, RequestError):
            raise heard
        if isinstance(heard, Refused):
            self._ended = True
            reason = f"{heard.param} {heard.reason}" if heard.param else heard.reason
            raise RequestError(400 if heard.param else 500, reason, heard.param, heard.code)
        return heard

    def _late(self) -> RequestError:
        if self._begun:
            return RequestError(504, f"the time was over after {self.completion_tokens} tokens of the answer", code="timeout")
        return RequestError(503, "the time was over before this prompt's turn came", code="timeout", headers={"Retry-After": "1"})


class Asked:
    """The questions of one request; at the end of a with-block, those without an answer are given up."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs

    def __enter__(self) -> "Asked":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.give_up()

    def give_up(self) -> None:
        """Nobody waits for the answers any more."""
        for job in self.jobs:
            job.give_up()
