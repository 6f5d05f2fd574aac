"""The process that has the model: it answers one question after the other, and stops between two tokens when told to."""

import signal
import sys
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from tools.serve.answer_text import AnswerText
from tools.serve.question import Begun, End, FinishReason, Heard, Piece, Question, Ready, Refused, Stop, Stopped
from tunepress.core.errors import InputError, one_line
from tunepress.inference.genai_config import GenaiConfig
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.scoring import completion_logprobs, softmax
from tunepress.text.tokenizer import Tokens


def main(folder: Path, max_length: int, connection: "Connection[Heard, Question | Stop | None]") -> None:
    """Loads the model, then answers until it is told None, or the other process is gone.

    Args:
        folder: of the ONNX model.
        max_length: tokens that a prompt and its answer may have together.
        connection: to the other process.
    """
    for ending in (signal.SIGINT, signal.SIGTERM):  # a whole process group is told to end; the other process says when
        signal.signal(ending, signal.SIG_IGN)
    try:
        model = ServedModel(folder, max_length)
    except (InputError, RuntimeError) as error:  # or onnxruntime's, at a file that is not what it should be
        connection.send(Refused(str(error) if isinstance(error, InputError) else f"{folder}: {one_line(error)}", None, None))
        return
    connection.send(Ready())
    try:
        while question := connection.recv():
            if isinstance(question, Question):  # or a Stop that came too late
                answer(model, question, connection)
    except (EOFError, OSError):
        sys.exit()


def answer(model: "ServedModel", question: Question, connection: "Connection[Heard, Question | Stop | None]") -> None:
    """Sends what there is to hear, until it is complete or nobody wants it."""
    heard = model.answer(question)
    while True:
        try:
            one = next(heard)
        except StopIteration:
            return
        except QuestionError as error:
            connection.send(Refused(error.reason, question.param, error.code))
            return
        except Exception as error:  # whatever onnxruntime raises: this answer fails, the next may not
            traceback.print_exc()
            connection.send(Refused(f"the model failed ({one_line(error)})", None, None))
            return
        connection.send(one)
        if not isinstance(one, End) and connection.poll():
            if connection.recv() is None:
                sys.exit()
            connection.send(Stopped())
            return


class QuestionError(Exception):
    """The question cannot be asked."""

    def __init__(self, reason: str, code: str | None = None) -> None:
        self.reason, self.code = reason, code


class ServedModel:
    """An ONNX model that shows its answers while it writes them."""

    def __init__(self, folder: Path, max_length: int) -> None:
        self._model, self._max_length = OnnxModel(folder), max_length
        self._ends = set(GenaiConfig.read(folder).eos_token_ids)

    def answer(self, question: Question) -> Iterator[Heard]:
        """Begun, a Piece for each token, and End.

        Raises:
            QuestionError: the prompt is not a text for this model, or leaves no room for an answer.
        """
        prompt = self._encode(question)
        completions = [self._model.encode_completion(text) for text in question.scored]
        room = self._room(prompt, max(map(len, completions), default=1))
        yield Begun(len(prompt))
        text, token = AnswerText(self._model.decode, question.stop), -1
        for token in self._model.generate(prompt, min(question.max_new_tokens, room), **sampling(question)):
            yield Piece("" if token in self._ends else text.add(token))
            if text.stopped:
                break
        reason: FinishReason = "stop" if text.stopped or token in self._ends else "length"
        yield End(text.rest(), reason, self._probabilities(prompt, completions))

    def _encode(self, question: Question) -> Tokens:
        tokens = self._model.encode_prompt(question.prompt)
        bare = [int(token) for token in self._model.bare_tokenizer.encode(question.prompt)]
        if question.from_template and bare and tokens == [bare[0], *bare]:
            return bare  # the template and the tokenizer have both written the first token
        if not tokens:
            raise QuestionError("is no text for this model: its tokenizer makes no token of it")
        return tokens

    def _room(self, prompt: Tokens, needed: int) -> int:
        """Tokens that an answer to a prompt may have."""
        room = self._max_length - len(prompt)
        if room < needed:
            raise QuestionError(
                f"has {len(prompt)} tokens, which leave no room for an answer of {needed} in the {self._max_length} that a "
                "prompt and its answer may have here",
                "context_length_exceeded",
            )
        return room

    def _probabilities(self, prompt: Tokens, completions: list[Tokens]) -> tuple[float, ...]:
        if not completions:
            return ()
        ((_, log_probabilities),) = completion_logprobs(self._model, [(prompt, completions)])
        return tuple(softmax(np.array(log_probabilities)).tolist())


def sampling(question: Question) -> dict[str, bool | int | float]:
    """onnxruntime-genai's options for it: top_k is off, for no client of OpenAI's can have meant the model folder's."""
    if question.temperature == 0:
        return {}
    options = {"do_sample": True, "temperature": question.temperature, "top_p": question.top_p, "top_k": 0}
    return options if question.seed is None else options | {"random_seed": question.seed}
