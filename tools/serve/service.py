"""The service: a model, what its folder says about it, and the rules for requests to it."""

import asyncio
import time
from collections.abc import Sequence

from tools.serve.metrics import Metrics
from tools.serve.responses import Health, Model, RequestError
from tools.serve.settings import CHARACTERS_PER_TOKEN, Settings
from tools.serve.tasks import Task, read_adapter
from tools.serve.workers.jobs import Batch
from tools.serve.workers.messages import ModelRequest
from tools.serve.workers.queue import Queue
from tunepress.inference.genai_config import GenaiConfig


class Service:
    """One served model, which is not loaded yet.

    Args:
        settings: of the server.

    Attributes:
        settings: of the server.
        tasks: by name, the model's own first.
        max_length: maximum number of tokens of a prompt and its answer together.
        queue: of prompts, which model processes answer.
        metrics: of the server.
        closing: whether new requests are refused.

    Raises:
        InputError: the folder has no model, or its context is shorter than the settings require.
    """

    def __init__(self, settings: Settings) -> None:
        config = GenaiConfig.read(settings.model)
        self.settings = settings
        own = Task.read(settings.name, settings.model, settings.abstain_below)
        adapters = {
            name: read_adapter(name, folder, settings.model, settings.abstain_below) for name, folder in settings.adapters.items()
        }
        self.tasks = {own.name: own, **adapters}
        longest_row = max(task.longest_row for task in self.tasks.values())
        self.max_length = settings.max_length(config.model["context_length"], longest_row)
        self.metrics = Metrics()
        self.queue = Queue(settings, self.max_length, [task.tuning for task in adapters.values()], self.metrics)
        self.closing = False
        self._close_deadline = 0.0

    def health(self) -> Health:
        return Health(status="shutting down" if self.closing else "ok" if self.queue.alive else "restarting the model")

    def check_open(self) -> None:
        """Raises RequestError if the server is shutting down."""
        if self.closing:
            raise RequestError(503, "the server is shutting down", code="shutting_down", headers={"Connection": "close"})

    def task(self, name: str | None, param: str = "model") -> Task:
        """The task that a request names, by default the model's own.

        Raises:
            RequestError: it is not served.
        """
        name = self.settings.name if name is None else name
        if name not in self.tasks:
            served = f"the models are {', '.join(map(repr, self.tasks))}"
            if len(self.tasks) == 1:
                served = f"the only model is {self.settings.name!r}"
            raise RequestError(404, f"{param}: {name!r} not found; {served}", param, "model_not_found")
        return self.tasks[name]

    def model(self, task: Task) -> Model:
        """A task as clients see it."""
        parent = self.settings.name if task.tuning.adapter else None
        return Model(id=task.name, created=task.created, parent=parent)

    def submit(self, requests: Sequence[ModelRequest], samples: int = 1) -> Batch:
        """Queues the prompts of one HTTP request.

        Args:
            requests: `samples` per prompt.
            samples: number of answers to each prompt.

        Raises:
            RequestError: they are too many or too long, or the queue is full.
        """
        self.check_open()
        settings = self.settings
        if len(requests) > settings.max_prompts:
            param, items = requests[0].param, f"{len(requests) // samples} items"
            if samples > 1:
                param, items = "n", f"{len(requests)} answers"
            raise RequestError(400, f"{param}: has {items}, at most {settings.max_prompts} are allowed", param)
        for request in requests:
            self._check_size(request)
        return self.queue.submit(requests, asyncio.get_running_loop().time() + settings.timeout, samples)

    def close(self, at_once: bool = False) -> None:
        """Refuses new requests; those accepted are answered within `settings.grace` seconds, or not at all."""
        self.closing, self._close_deadline = True, time.monotonic() + (0 if at_once else self.settings.grace)

    def drained(self) -> bool:
        """Whether a closing service has nothing left to answer; after its deadline, the rest is cancelled."""
        if not self.closing:
            return False
        if not self.queue.idle and time.monotonic() > self._close_deadline:
            reason = "the server shut down before the answer was complete"
            self.queue.cancel_all(RequestError(503, reason, code="shutting_down"))
            return True
        return self.queue.idle

    def _check_size(self, request: ModelRequest) -> None:
        """Checks the characters; the model process checks the tokens, which it counts."""
        max_characters = self.max_length * CHARACTERS_PER_TOKEN
        longest = max(map(len, request.prompts))
        if longest > max_characters:
            raise RequestError(
                400,
                f"{request.param}: has {longest} characters, at most {max_characters} are allowed "
                f"({CHARACTERS_PER_TOKEN} for each of {self.max_length} tokens)",
                request.param,
                "context_length_exceeded",
            )
