"""The service: a model, what is known of it, and the rules by which it is asked."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from tools.serve.conversation import Conversation
from tools.serve.errors import RequestError
from tools.serve.metrics import Metrics
from tools.serve.question import Question
from tools.serve.replies import Health
from tools.serve.requests import Sampling
from tools.serve.settings import CHARACTERS_PER_TOKEN, Settings
from tools.serve.worker import Asked, Worker
from tunepress.inference.genai_config import GenaiConfig
from tunepress.text.prompt import Prompt, column_names

OPENAIS_MAX_TOKENS = 16  # of /v1/completions, for a model whose prompt.json says nothing


class Service:
    """One model, served.

    Attributes:
        settings: of the server.
        prompt: that the model was trained with.
        conversation: how chat messages become a prompt.
        max_length: tokens that a prompt and its answer may have together.
        created: when the model was built, in seconds since 1970.
        worker: who answers.
        metrics: what is counted.
        closing: whether the server takes no more requests.
    """

    def __init__(self, settings: Settings) -> None:
        """Reads what is known of the model, which is not loaded yet.

        Raises:
            InputError: the folder has no model, or one with less room than is set.
        """
        config = GenaiConfig.read(settings.model)
        self.settings = settings
        self.prompt = Prompt.load(settings.model)
        self.conversation = Conversation(settings.model, self.prompt)
        longest_row = self.prompt.source_max_len + self.prompt.max_new_tokens
        self.max_length = settings.max_length(config.model["context_length"], longest_row)
        self.created = int(config.path.stat().st_mtime)
        self.metrics = Metrics()
        self.worker = Worker(settings, self.max_length, self.metrics)
        self.closing = False
        self._last_answer = 0.0

    @property
    def max_tokens(self) -> int:
        """Of an answer for which nobody says how many: those of the longest in training."""
        return self.prompt.max_new_tokens or OPENAIS_MAX_TOKENS

    def health(self) -> Health:
        """How the server is."""
        return Health(status="shutting down" if self.closing else "ok" if self.worker.alive else "restarting the model")

    def check_open(self) -> None:
        """Raises RequestError where the server takes no more requests."""
        if self.closing:
            raise RequestError(503, "the server is shutting down", code="shutting_down", headers={"Connection": "close"})

    def check_model(self, name: str | None) -> None:
        """Raises RequestError where another model is asked for."""
        if name is not None and name != self.settings.name:
            reason = f"model: there is no {name!r} here; the one model is {self.settings.name!r}"
            raise RequestError(404, reason, "model", "model_not_found")

    def sampled(self, question: Question, body: Sampling) -> Question:
        """The question with what a request says of how the answer is written."""
        return replace(
            question,
            temperature=body.temperature or 0.0,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=body.seed,
            stop=tuple(body.stop or ()),
        )

    def ask(self, questions: Sequence[Question]) -> Asked:
        """Puts the questions of one request behind those that wait.

        Raises:
            RequestError: they are too many or too long, or there is no room.
        """
        self.check_open()
        settings = self.settings
        if len(questions) > settings.max_prompts:
            param = questions[0].param
            raise RequestError(400, f"{param}: {len(questions)} of them, of at most {settings.max_prompts} in one request", param)
        for question in questions:
            self._check_size(question)
        return self.worker.ask(questions, asyncio.get_running_loop().time() + settings.timeout)

    def labels_in_full(self) -> tuple[str, ...] | None:
        """What the model learned to write for each label; None where that goes on with columns that nobody knows here."""
        columns = column_names(self.prompt.completion)
        if len(columns) > 1:
            return None
        return tuple(self.prompt.render_completion({columns[0]: label}) for label in self.prompt.labels or ())

    def close(self, at_once: bool = False) -> None:
        """Takes no more requests; those taken are answered, for as long as settings say or not at all."""
        self.closing, self._last_answer = True, time.monotonic() + (0 if at_once else self.settings.grace)

    def drained(self) -> bool:
        """Whether a closed service has nothing to answer any more; after the time for it, what is left is given up."""
        if not self.closing:
            return False
        if not self.worker.idle and time.monotonic() > self._last_answer:
            reason = "the server has shut down before the answer was complete"
            self.worker.give_up_all(RequestError(503, reason, code="shutting_down"))
            return True
        return self.worker.idle

    def _check_size(self, question: Question) -> None:
        """The rest is checked where the prompt's tokens are counted, in the model's process."""
        most = self.max_length * CHARACTERS_PER_TOKEN
        if len(question.prompt) > most:
            raise RequestError(
                400,
                f"{question.param}: has {len(question.prompt)} characters, of at most {most} "
                f"({CHARACTERS_PER_TOKEN} for each of {self.max_length} tokens)",
                question.param,
                "context_length_exceeded",
            )
