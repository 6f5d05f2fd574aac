"""One model process, which is restarted when it ends unexpectedly."""

import asyncio
import logging
import math
import time
from collections.abc import Callable

from tools.serve.metrics import Metrics
from tools.serve.responses import RequestError
from tools.serve.workers.jobs import Job
from tools.serve.workers.messages import (
    Cancel,
    Cancelled,
    Command,
    Failed,
    Finished,
    ModelEvent,
    Ready,
    Scored,
    Started,
    Token,
)
from tools.serve.workers.model_process import ModelProcess
from tunepress.core.errors import InputError, one_line

MAX_RESTART_DELAY = 30.0  # seconds before a restart; 1, 2, 4 ... before the first ones
LOAD_TIMEOUT = 600.0  # seconds for a restart; the first start has no limit, since whoever started it sees it wait
logger = logging.getLogger("uvicorn.error")


class Worker:
    """Answers jobs one after the other. After `wait_until_loaded`, it is used from one event loop.

    Args:
        start: starts a process.
        restarts: in a row without an answer in between.
        metrics: are updated with what happens.
        next_job: returns the next job of the queue; None if nothing waits.
        on_exit: called with the error for waiting requests when the process has ended.

    Attributes:
        alive: whether the model is loaded.
        failure: why the process is no longer restarted; None while it is.
        running: the job that is being answered.
        mean_seconds: of an answer.
    """

    def __init__(
        self,
        start: Callable[[], ModelProcess],
        restarts: int,
        metrics: Metrics,
        next_job: Callable[[], Job | None],
        on_exit: Callable[[RequestError], None],
    ) -> None:
        self._start, self._restarts, self._metrics = start, restarts, metrics
        self._next_job, self._on_exit = next_job, on_exit
        self._process: ModelProcess | None = None
        self._load_error = ""  # why the process could not load the model
        self._failures = 0  # in a row
        self._load_timer: asyncio.TimerHandle | None = None  # kills a process that does not load the model in time
        self.alive = False
        self.failure: str | None = None
        self.running: Job | None = None
        self.mean_seconds = 1.0

    def start(self) -> None:
        """Starts the process, which loads the model."""
        self._process = self._start()

    def wait_until_loaded(self) -> None:
        """Waits for the first start.

        Raises:
            InputError: the model cannot be loaded.
        """
        assert self._process
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
    def idle(self) -> bool:
        """Whether it would begin with a job at once."""
        return self.alive and self.running is None

    def run_next(self) -> None:
        """Sends the next request unless one is being answered."""
        if self.idle and (job := self._next_job()):
            self.running = job
            job.started_at = time.monotonic()
            self._send(job.request)

    def cancel(self) -> None:
        """Stops the answer at the next token."""
        self._send(Cancel())

    def ask_to_exit(self) -> None:
        """Lets the process end by itself, without waiting for it."""
        self._send(None)

    def stop(self) -> None:
        """Ends the process."""
        if self._process:
            self._process.stop()

    def unavailable(self, reason: str) -> RequestError:
        """The error of a request that meets no loaded model."""
        return RequestError(503, reason, code="model_ended", headers={"Retry-After": f"{math.ceil(self._restart_delay())}"})

    def _send(self, command: Command) -> None:
        if self._process:
            self._process.send(command)

    def _on_event(self, event: ModelEvent) -> None:
        job = self.running
        if job is None:  # the process has been restarted
            self.alive = isinstance(event, Ready)
            self._load_error = event.reason if isinstance(event, Failed) else ""
            if self.alive:
                logger.info("the model is loaded again")
                self.run_next()
            return
        self._count(event, job)
        job.put(event)
        if isinstance(event, Finished | Scored | Cancelled | Failed):
            seconds = time.monotonic() - job.started_at
            self.mean_seconds += (seconds - self.mean_seconds) / 10
            self._failures = 0
            self.running = None
            self.run_next()

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
        error = self.unavailable(reason)
        if self.running:
            self.running.put(error)
            self.running = None
        self._on_exit(error)
        if self._failures > self._restarts:
            self.failure = f"{reason}; {self._failures} times in a row without an answer in between (--restarts)"
            logger.error("%s", self.failure)
            return
        delay = self._restart_delay()
        logger.error("%s; restarting it in %g s", reason, delay)
        asyncio.get_running_loop().call_later(delay, self._restart)

    def _restart(self) -> None:
        self._metrics.restarts.inc()
        try:
            self.start()
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
