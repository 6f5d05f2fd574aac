"""Typed questions about an input: the prompts that ask them, and what the probabilities of their options say.

A model with labels was trained on one question, so it reads the input alone, and its options are labels. A model without labels
answers any question if its prompt has the columns `instructions` and `options`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from tools.serve.classification import check_columns
from tools.serve.requests import Row
from tools.serve.responses import RequestError
from tools.serve.tasks import Task
from tools.serve.workers.messages import ScoringRequest
from tunepress.core.errors import InputError
from tunepress.inference.scoring import softmax

MOST_QUESTIONS, MOST_OPTIONS = 400, 255  # OpenAI's
INSTRUCTIONS, OPTIONS = "instructions", "options"  # columns of a prompt with which a model answers any question
YES_NO: Mapping[str, str | None] = {"yes": None, "no": None}
PAIRS = (("yes", "no"), ("true", "false"))  # of labels that a yes/no question has
ROW: TypeAdapter[Row] = TypeAdapter(Row, config=ConfigDict(strict=True))

Input = str | Row | list[dict[str, Any]]  # a text, the columns of a row, or messages


@dataclass(frozen=True)
class Question:
    """A question with its possible answers, in the order of a scale if it has one.

    Attributes:
        param: its field in the request, for errors.
        instructions: what is to be decided.
        options: the possible answers with their descriptions.
        yes_no: whether these are yes and no, for which a model with labels has its own words.
    """

    param: str
    instructions: str
    options: Mapping[str, str | None]
    yes_no: bool = False

    def values(self, labels: Sequence[str] | None) -> list[str]:
        """The possible answers in the model's words."""
        if not labels or not self.yes_no:
            return list(self.options)
        by_name = {label.lower(): label for label in labels}
        pair = next(([by_name[yes], by_name[no]] for yes, no in PAIRS if {yes, no} <= by_name.keys()), None)
        if pair is None:
            reason = f"{self.param}: this model has the labels {', '.join(labels)}, not yes and no; ask for a choice of labels"
            raise RequestError(400, reason, self.param)
        return pair


class Decider:
    """Asks a model questions about an input.

    Args:
        task: that is asked.
        content: the input, any JSON.
        param: its field in the request, for errors.

    Raises:
        RequestError: the model answers no questions with given options, or does not have the columns of the input.
    """

    def __init__(self, task: Task, content: Any, param: str) -> None:
        self._prompt, self._chat, self._tuning, self._param = task.prompt, task.chat_prompt, task.tuning, param
        self._any_question = not self._prompt.labels and {INSTRUCTIONS, OPTIONS} <= set(self._prompt.columns)
        self._columns = [name for name in self._prompt.columns if not (self._any_question and name in (INSTRUCTIONS, OPTIONS))]
        frame = self._chat.answer_frame()
        if not frame or not (self._prompt.labels or self._any_question):
            reason = (
                f"this model was not trained to choose: it has no labels, and its prompt no columns {INSTRUCTIONS} and {OPTIONS}"
                if frame
                else "this model writes other columns after its answer, so an option alone is not a complete answer"
            )
            raise RequestError(400, reason, code="no_labels")
        self._frame, self._content = frame, self._as_asked(content)

    def request(self, questions: Sequence[Question]) -> tuple[ScoringRequest, list[tuple[int, list[int]]]]:
        """Returns what is to be scored, and for each question the index of its prompt and those of its options' completions.

        Raises:
            RequestError: an option is not a label, or the input does not fit the model.
        """
        scored: dict[str, dict[str, int]] = {}  # index of a completion by prompt and text
        places = []
        for question in questions:
            prompt = self._render(question)
            completions = scored.setdefault(prompt, {})
            texts = [value.join(self._frame) for value in self._allowed(question)]
            numbers = [completions.setdefault(text, len(completions)) for text in texts]
            places.append((list(scored).index(prompt), numbers))
        from_template = self._chat.trained and isinstance(self._content, list)
        completions_of_all = tuple(map(tuple, scored.values()))
        return ScoringRequest(tuple(scored), completions_of_all, self._param, self._tuning, from_template), places

    def _allowed(self, question: Question) -> list[str]:
        labels = self._prompt.labels
        values = question.values(labels)
        if unknown := [value for value in values if labels and value not in labels]:
            reason = f"{question.param}: {unknown[0]!r} is not a label of this model; its labels are {', '.join(labels or ())}"
            raise RequestError(400, reason, question.param, "unknown_option")
        return values

    def _render(self, question: Question) -> str:
        content = self._content
        try:
            if self._any_question:
                return self._prompt.render_prompt(self._row(question))
            if isinstance(content, str):
                return self._chat.render_text(content.strip())
            if isinstance(content, list):
                return self._chat.render(content).prompt
        except InputError as error:
            raise RequestError(400, f"{self._param}: {error}", self._param) from error
        check_columns(content, self._prompt, self._param)
        return self._prompt.render_prompt(content)

    def _row(self, question: Question) -> Row:
        """The columns of a prompt for any question: those of the input, the instructions, and the options, each on a line."""
        lines = [f"{value}: {description}" if description else value for value, description in question.options.items()]
        row: Row = {INSTRUCTIONS: question.instructions, OPTIONS: "\n".join(lines)}
        if isinstance(self._content, dict):
            row = {**self._content, **row}
        elif isinstance(self._content, str) and len(self._columns) == 1:
            row[self._columns[0]] = self._content.strip()
        else:
            columns = ", ".join(map(repr, self._columns))
            raise RequestError(400, f"{self._param}: must be an object with the columns {columns}", self._param)
        check_columns(row, self._prompt, self._param)
        return row

    def _as_asked(self, content: Any) -> Input:
        """The input as the model reads it: an object without the columns of the prompt, or an array, is JSON in a text."""
        if isinstance(content, str) or _are_messages(content):
            return content
        if isinstance(content, dict) and self._columns:
            try:
                if len(self._columns) > 1 or content.keys() == set(self._columns):
                    return ROW.validate_python(content)
            except ValidationError as error:
                param = f"{self._param}.{error.errors()[0]['loc'][0]}"
                raise RequestError(400, f"{param}: must be a text, a number or a boolean", param) from error
        text: str = as_text(content)
        return text


@dataclass(frozen=True)
class Distribution:
    """The probabilities of a question's options, relative to each other."""

    probabilities: list[float]

    @classmethod
    def of(cls, logprobs: Sequence[float]) -> "Distribution":
        return cls(softmax(np.array(logprobs)).tolist())

    @property
    def top(self) -> int:
        """Index of the most likely option."""
        return int(np.argmax(self.probabilities))

    def abstains(self, bound: float) -> bool:
        """Whether the model gives no answer, because the most likely option is less likely than this."""
        return max(self.probabilities) < bound

    @property
    def concentration(self) -> float:
        """1 if one option has all the probability, 0 if all are equally likely: (p - 1/n) / (1 - 1/n) of the most likely one."""
        uniform = 1 / len(self.probabilities)
        return (max(self.probabilities) - uniform) / (1 - uniform)

    @property
    def level(self) -> float:
        """The mean of the options' indices."""
        return float(np.dot(self.probabilities, range(len(self.probabilities))))

    @property
    def level_concentration(self) -> float:
        """1 minus the standard deviation of the options' indices, relative to that of equally likely options; 0 at least."""
        levels = np.arange(len(self.probabilities))
        spread = np.sqrt(np.dot(self.probabilities, (levels - self.level) ** 2))
        return float(max(0.0, 1 - spread / levels.std()))


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) and "role" in entry for entry in value)


def as_text(value: Any) -> Any:
    """Replaces a JSON object or array by its text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def check_distinct(options: Sequence[str]) -> None:
    """Raises pydantic's error if an option is there twice."""
    if repeated := next((option for number, option in enumerate(options) if option in options[:number]), None):
        raise PydanticCustomError("repeated", "the option {option} is there twice", {"option": repr(repeated)})
