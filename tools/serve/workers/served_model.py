"""The model as its process uses it: answers token by token, and the scores of given ones."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tools.serve.workers.messages import (
    Finished,
    FinishReason,
    GenerationRequest,
    ModelEvent,
    Scored,
    ScoringRequest,
    Started,
    Token,
    TokenLogprob,
    TokenLogprobs,
    Tuning,
)
from tunepress.core.errors import InputError, one_line
from tunepress.inference.calibration import answer_probabilities
from tunepress.inference.genai_config import GenaiConfig
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.scoring import Logits, log_softmax, scores_of
from tunepress.text.tokenizer import Tokens

REPLACEMENT = "\ufffd"  # what a tokenizer makes of the first bytes of a character


class GenerationError(Exception):
    """The request cannot be answered."""

    def __init__(self, reason: str, code: str | None = None, param: str | None = None) -> None:
        self.reason, self.code, self.param = reason, code, param


class ServedModel:
    """An ONNX model that yields its answers token by token."""

    def __init__(self, folder: Path, max_length: int, tunings: Sequence[Tuning], threads: int) -> None:
        self._model, self._max_length = OnnxModel(folder, threads), max_length
        self._eos_token_ids = set(GenaiConfig.read(folder).eos_token_ids)
        for tuning in tunings:
            self._model.check_adapter(Path(tuning.adapter or ""), tuning.version)

    def answer(self, request: GenerationRequest) -> Iterator[ModelEvent]:
        """Yields Started, a Token for each token, and Finished.

        Raises:
            GenerationError: the tokenizer makes nothing of the prompt, there is no room for an answer, or the runtime cannot
                follow the grammar.
        """
        self._model.use_adapter(adapter_path(request.tuning), request.tuning.version)
        prompt = self._encode(request.prompt, request.from_template)
        completions = [self._model.encode_completion(text, request.prompt) for text in request.scored]
        room = self._room(prompt, max(map(len, completions), default=1))
        yield Started(len(prompt))
        text, token = AnswerText(self._model.decode, request.stop), -1
        for token, logprobs in self._generate(prompt, min(request.max_new_tokens, room), request):
            if logprobs:
                logprobs = replace(logprobs, offset=text.complete)
            yield Token("", None) if token in self._eos_token_ids else Token(text.add(token), logprobs)
            if text.stopped:
                break
        reason: FinishReason = "stop" if text.stopped or token in self._eos_token_ids else "length"
        probabilities = answer_probabilities(self._model, prompt, completions, request.tuning.temperature) if completions else ()
        yield Finished(text.rest(), reason, tuple(probabilities))

    def _generate(self, prompt: Tokens, length: int, request: GenerationRequest) -> Iterator[tuple[int, TokenLogprobs | None]]:
        """Yields the tokens of an answer, with their log-probabilities if the request has `top_logprobs`."""
        model, grammar, sampling = self._model, request.grammar, sampling_options(request)
        try:
            if request.top_logprobs is None:
                yield from ((token, None) for token in model.generate(prompt, length, grammar, **sampling))
                return
            last = prompt[-1]
            for token, logits in model.generate_with_logits(prompt, length, grammar, **sampling):
                yield token, self._logprobs(token, last, logits, request.top_logprobs)
                last = token
        except (InputError, RuntimeError) as error:  # the latter where an answer has become too complex for llguidance
            if request.guided_by is None:
                raise
            reason = f"cannot be followed ({one_line(error.__cause__ or error)})"
            raise GenerationError(reason, "unsupported_grammar", request.guided_by) from error

    def _logprobs(self, token: int, last: int, logits: Logits, top: int) -> TokenLogprobs:
        """The log-probabilities of a token after another one, and of the most likely tokens in its place."""
        logprobs = log_softmax(logits.astype(np.float64))
        likely = np.argpartition(-logits, top)[:top]
        likely = likely[np.argsort(-logits[likely], kind="stable")]
        chosen, *others = (TokenLogprob(self._text(each, last), float(logprobs[each])) for each in (token, *map(int, likely)))
        return TokenLogprobs(chosen, tuple(others))

    def _text(self, token: int, last: int) -> str:
        """The text of a token after another one; alone, some tokenizers would leave out the space with which it begins."""
        before = self._model.decode([last])
        both = self._model.decode([last, token])
        return both[len(before) :] if both.startswith(before) else self._model.decode([token])

    def score(self, request: ScoringRequest) -> Iterator[ModelEvent]:
        """Yields Started and Scored.

        Raises:
            GenerationError: as `answer`.
        """
        self._model.use_adapter(adapter_path(request.tuning), request.tuning.version)
        requests = []
        for text, options in zip(request.prompts, request.completions, strict=True):
            prompt = self._encode(text, request.from_template)
            completions = [self._model.encode_completion(option, text) for option in options]
            self._room(prompt, max(map(len, completions)))
            requests.append((prompt, completions))
        yield Started(sum(len(prompt) for prompt, _ in requests))
        scores = dict(scores_of(self._model.shared_logits(requests), requests))
        temperature = request.tuning.temperature or 1.0
        yield Scored(tuple(tuple(option.logprob / temperature for option in scores[index]) for index in range(len(requests))))

    def _encode(self, text: str, from_template: bool) -> Tokens:
        tokens = self._model.encode_prompt(text)
        bare = [int(token) for token in self._model.bare_tokenizer.encode(text)]
        if from_template and bare and tokens == [bare[0], *bare]:
            return bare  # the template and the tokenizer have both added the first token
        if not tokens:
            raise GenerationError("is not a text for this model: its tokenizer makes no token of it")
        return tokens

    def _room(self, prompt: Tokens, required: int) -> int:
        """The number of tokens that an answer to a prompt may have."""
        room = self._max_length - len(prompt)
        if room < required:
            raise GenerationError(
                f"has {len(prompt)} tokens, which leave no room for an answer of {required} in the {self._max_length} that a "
                "prompt and its answer may have here",
                "context_length_exceeded",
            )
        return room


def adapter_path(tuning: Tuning) -> Path | None:
    return Path(tuning.adapter) if tuning.adapter else None


def sampling_options(request: GenerationRequest) -> dict[str, bool | int | float]:
    """onnxruntime-genai's search options; top_k is off, since no OpenAI client can have meant the model folder's value."""
    if request.temperature == 0:
        return {}
    options = {"do_sample": True, "temperature": request.temperature, "top_p": request.top_p, "top_k": 0}
    return options if request.seed is None else options | {"random_seed": request.seed}


class AnswerText:
    """The text of an answer, token by token. The returned pieces, joined, are what the tokenizer decodes from all tokens.

    Args:
        decode: returns the text of tokens.
        stop: texts before which the answer ends.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str]) -> None:
        self._decode, self._stop = decode, stop
        self._tokens: list[int] = []
        self._text = ""
        self._returned = 0  # characters
        self.stopped = False  # whether a stop text was reached

    def add(self, token: int) -> str:
        """Adds a token and returns the text that has become certain."""
        self._tokens.append(token)
        self._text = self._decode(self._tokens)
        positions = [position for position in (self._text.find(stop) for stop in self._stop) if position >= 0]
        if positions:
            self._text, self.stopped = self._text[: min(positions)], True
            return ""
        return self._take(self.complete - self._held_back())

    @property
    def complete(self) -> int:
        """The number of characters so far, without the first bytes of another one."""
        return len(self._text.rstrip(REPLACEMENT))

    def rest(self) -> str:
        """Returns the remaining text once the last token has been added."""
        return self._take(len(self._text))

    def _held_back(self) -> int:
        """The number of characters at the end with which a stop text may begin."""
        text = self._text.rstrip(REPLACEMENT)
        lengths = (length for stop in self._stop for length in range(1, len(stop)) if text.endswith(stop[:length]))
        return max(lengths, default=0)

    def _take(self, end: int) -> str:
        piece, self._returned = self._text[self._returned : end], max(self._returned, end)
        return piece
