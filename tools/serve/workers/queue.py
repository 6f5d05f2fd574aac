"""The queue of prompts in front of the model processes."""

import math
from collections import deque
from collections.abc import Sequence
from functools import partial
from statistics import fmean

from tools.serve.metrics import Metrics
from tools.serve.responses import RequestError
from tools.serve.settings import Settings
from tools.serve.workers.jobs import Batch, Job
from tools.serve.workers.messages import ModelRequest, Tuning
from tools.serve.workers.model_process import ModelProcess
from tools.serve.workers.worker import Worker
from tunepress.core.errors import InputError, one_line


class Queue:
    """Prompts and the workers that answer them. After `load`, it is used from one event loop.

    Args:
        settings: of the server.
        max_length: maximum number of tokens of a prompt and its answer together.
        tunings: that each process loads at its start.
        metrics: are updated with what happens.

    Attributes:
        workers: one for each process.
    """

    def __init__(self, settings: Settings, max_length: int, tunings: Sequence[Tuning], metrics: Metrics) -> None:
        self._capacity = settings.queue
        self._waiting: deque[Job] = deque()
        start = partial(ModelProcess, settings.model, max_length, tunings, settings.processes)
        self.workers = [Worker(start, settings.restarts, metrics, self._next, self._on_exit) for _ in range(settings.processes)]

    def load(self) -> None:
        """Starts the processes and waits until each has loaded the model.

        Raises:
            InputError: the model cannot be loaded.
        """
        try:
            for worker in self.workers:
                worker.start()
        except OSError as error:
            raise InputError(f"the model's process cannot be started ({one_line(error)}); use fewer --processes") from error
        for worker in self.workers:
            worker.wait_until_loaded()

    def listen(self) -> None:
        """Handles the events of the processes in the running event loop."""
        for worker in self.workers:
            worker.listen()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether a process has the model loaded."""
        return any(worker.alive for worker in self.workers)

    @property
    def failure(self) -> str | None:
        """Why none of the processes is restarted any more; None while one is."""
        failures = [worker.failure for worker in self.workers]
        return failures[0] if all(failures) else None

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered or waiting."""
        return not self._waiting and not any(worker.running for worker in self.workers)

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
            restarting = min(self.workers, key=lambda worker: worker.failure is not None)
            raise restarting.unavailable("the model's process has ended and is being restarted")
        idle = sum(worker.idle for worker in self.workers)
        if len(requests) > self._capacity - len(self._waiting) + idle:
            seconds = fmean(worker.mean_seconds for worker in self.workers) / len(self.workers)
            retry_after = max(1, math.ceil(seconds))
            reason = f"the queue is full: {len(self._waiting)} of {self._capacity} prompts are waiting; retry in {retry_after} s"
            raise RequestError(429, reason, code="queue_full", headers={"Retry-After": str(retry_after)})
        jobs = [Job(request, deadline, self._cancel) for request in requests]
        self._waiting.extend(jobs)
        for worker in self.workers:
            worker.run_next()
        return Batch(jobs, samples)

    def cancel_all(self, error: RequestError) -> None:
        """Cancels all jobs; `error` is raised where their answers are awaited."""
        for job in [*self._waiting, *(worker.running for worker in self.workers if worker.running)]:
            job.put(error)
            self._cancel(job)

    def stop(self) -> None:
        """Ends the processes."""
        for worker in self.workers:
            worker.ask_to_exit()
        for worker in self.workers:
            worker.stop()

    def _cancel(self, job: Job) -> None:
        """Removes a job from the queue, or stops its answer at the next token."""
        if job in self._waiting:
            self._waiting.remove(job)
        for worker in self.workers:
            if worker.running is job:
                worker.cancel()

    def _next(self) -> Job | None:
        return self._waiting.popleft() if self._waiting else None

    def _on_exit(self, error: RequestError) -> None:
        """Fails the jobs that wait, unless another process goes on with them."""
        if not self.alive:
            for job in self._waiting:
                job.put(error)
            self._waiting.clear()
