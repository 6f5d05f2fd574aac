"""The queue of requests in front of the model process, which is restarted when it ends unexpectedly."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Sequence

from tools.serve.jobs import Batch, Job
from tools.serve.messages import Cancel, Cancelled, Failed, Finished, ModelEvent, ModelRequest, Ready, Scored, Started, Token
from tools.serve.metrics import Metrics
from tools.serve.model_process import ModelProcess
from tools.serve.responses import RequestError
from tools.serve.settings import Settings
from tunepress.core.errors import InputError, one_line

MAX_RESTART_DELAY = 30.0  # seconds before a restart; 1, 2, 4 ... before the first ones
LOAD_TIMEOUT = 600.0  # seconds for a restart; the first start has no limit, since whoever started it sees it wait
logger = logging.getLogger("uvicorn.error")


class Worker:
    """One model process and its queue. After `load`, it is used from one event loop.

    Args:
        settings: of the server.
        max_length: maximum number of tokens of a prompt and its answer together.
        metrics: are updated with what happens.

    Attributes:
        alive: whether the model is loaded.
        failure: why the process is no longer restarted; None while it is.
    """

    def __init__(self, settings: Settings, max_length: int, metrics: Metrics) -> None:
        self._settings, self._max_length, self._metrics = settings, max_length, metrics
        self._capacity = settings.queue
        self._queue: deque[Job] = deque()
        self._running: Job | None = None
        self._mean_seconds = 1.0  # of an answer
        self._process: ModelProcess | None = None
        self._load_error = ""  # why the process could not load the model
        self._failures = 0  # in a row
        self._load_timer: asyncio.TimerHandle | None = None  # kills a process that does not load the model in time
        self.alive = False
        self.failure: str | None = None

    def load(self) -> None:
        """Starts the process and waits until the model is loaded.

        Raises:
            InputError: the model cannot be loaded.
        """
        self._process = self._start()
        try:
            event = self._process.receive()
        except EOFError:
            reason = f"the model's process ended while it loaded the model ({self._process.exit_status})"
            raise InputError(reason) from None
        if isinstance(event, Failed):
            raise InputError(event.reason)
        assert isinstance(event, Ready)
        self.alive = True

    def listen(self) -> None:
        """Handles the events of the process in the running event loop."""
        assert self._process
        self._process.listen(self._on_event, self._on_process_exit)

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def queue_length(self) -> int:
        return len(self._queue)

    @property
    def idle(self) -> bool:
        return not (self._running or self._queue)

    def submit(self, requests: Sequence[ModelRequest], deadline: float, samples: int = 1) -> Batch:
        """Queues all prompts of one HTTP request, or none.

        Args:
            requests: `samples` per prompt.
            deadline: when the last one must be answered, by the event loop's clock.
            samples: number of answers to each prompt.

        Raises:
            RequestError: the queue is full, or the model is not loaded.
        """
        if not self.alive:
            raise self._unavailable("the model's process has ended and is being restarted")
        free = self._capacity - len(self._queue) + (self._running is None)
        if len(requests) > free:
            retry_after = max(1, math.ceil(self._mean_seconds))
            reason = f"the queue is full: {len(self._queue)} of {self._capacity} prompts are waiting; retry in {retry_after} s"
            raise RequestError(429, reason, code="queue_full", headers={"Retry-After": str(retry_after)})
        jobs = [Job(request, deadline, self.cancel) for request in requests]
        self._queue.extend(jobs)
        self._run_next()
        return Batch(jobs, samples)

    def cancel(self, job: Job) -> None:
        """Removes a job from the queue, or stops its answer at the next token."""
        if job in self._queue:
            self._queue.remove(job)
        elif job is self._running:
            self._send(Cancel())

    def cancel_all(self, error: RequestError) -> None:
        """Cancels all jobs; `error` is raised where their answers are awaited."""
        for job in [*self._queue, *([self._running] if self._running else [])]:
            job.put(error)
            self.cancel(job)

    def stop(self) -> None:
        """Ends the process."""
        if self._process:
            self._process.stop()

    def _run_next(self) -> None:
        """Sends the next request unless one is being answered."""
        if self._running is None and self._queue:
            self._running = self._queue.popleft()
            self._running.started_at = time.monotonic()
            self._send(self._running.request)

    def _start(self) -> ModelProcess:
        return ModelProcess(self._settings.model, self._max_length)

    def _send(self, command: ModelRequest | Cancel) -> None:
        if self._process:
            self._process.send(command)

    def _on_event(self, event: ModelEvent) -> None:
        job = self._running
        if job is None:  # the process has been restarted
            self.alive = isinstance(event, Ready)
            self._load_error = event.reason if isinstance(event, Failed) else ""
            if self.alive:
                logger.info("the model is loaded again")
            return
        self._count(event, job)
        job.put(event)
        if isinstance(event, Finished | Scored | Cancelled | Failed):
            seconds = time.monotonic() - job.started_at
            self._mean_seconds += (seconds - self._mean_seconds) / 10
            self._failures = 0
            self._running = None
            self._run_next()

    def _count(self, event: ModelEvent, job: Job) -> None:
        if isinstance(event, Started):
            self._metrics.prompt_tokens.inc(event.prompt_tokens)
        elif isinstance(event, Token):
            self._metrics.completion_tokens.inc()
            if job.completion_tokens == 0:
                self._metrics.time_to_first_token.observe(time.monotonic() - job.submitted_at)
        elif isinstance(event, Cancelled):
            self._metrics.cancelled.inc()

    def _on_process_exit(self) -> None:
        """Restarts the process after it was killed, crashed or could not load the model; also called after `stop`."""
        assert self._process
        reason = self._load_error or f"the model's process has ended ({self._process.exit_status})"
        self.alive, self._load_error = False, ""
        if self._load_timer:
            self._load_timer.cancel()
        self._failures += 1
        self.cancel_all(self._unavailable(reason))
        self._running = None
        if self._failures > self._settings.restarts:
            self.failure = f"{reason}; {self._failures} times in a row without an answer in between (--restarts)"
            return
        delay = self._restart_delay()
        logger.error("%s; restarting it in %g s", reason, delay)
        asyncio.get_running_loop().call_later(delay, self._restart)

    def _restart(self) -> None:
        self._metrics.restarts.inc()
        try:
            self._process = self._start()
        except OSError as error:  # out of memory or process ids
            self._load_error = f"the model's process cannot be started ({one_line(error)})"
            self._on_process_exit()
        else:
            self.listen()
            self._load_timer = asyncio.get_running_loop().call_later(LOAD_TIMEOUT, self._on_load_timeout)

    def _on_load_timeout(self) -> None:
        if self._process and not self.alive:
            self._load_error = f"the model's process has not loaded the model in {LOAD_TIMEOUT:g} s"
            self._process.kill()

    def _restart_delay(self) -> float:
        return float(min(MAX_RESTART_DELAY, 2 ** max(0, self._failures - 1)))

    def _unavailable(self, reason: str) -> RequestError:
        return RequestError(503, reason, code="model_ended", headers={"Retry-After": f"{math.ceil(self._restart_delay())}"})
