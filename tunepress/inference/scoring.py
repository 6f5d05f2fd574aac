"""Likelihoods: the probability that a model assigns to a text, instead of the text that it generates."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tunepress.text.segments import Turn
from tunepress.text.tokenizer import Tokens, truncate

CHUNK = 128  # tokens of a completion whose logits are in memory at the same time, over the whole vocabulary each

Requests = Sequence[tuple[Tokens, list[Tokens]]]  # a prompt and its completions each
Logits = NDArray[np.float32]


class Scorer(Protocol):
    """A model that returns logits, with torch or onnxruntime-genai."""

    def encode_prompt(self, text: str) -> list[int]:
        """Tokens of a prompt, including the BOS token if the tokenizer adds one."""

    def encode_completion(self, text: str, after: str) -> list[int]:
        """Tokens of a completion after a prompt, including an EOS token at the end."""

    def logits(self, requests: Requests) -> Iterator[tuple[int, int, Logits]]:
        """The logits that predict the tokens of completions, in chunks.

        Args:
            requests: prompts with their completions, the same number for each prompt.

        Yields:
            The index of a prompt, the index of one of its completions, and the logits that predict the next tokens of the
            completion, at most CHUNK of them, [tokens, vocabulary]. The chunks of a completion follow each other, and so do the
            completions of a prompt.
        """


class Model(Scorer, Protocol):
    """A model that answers too."""

    @property
    def context_length(self) -> int | None:
        """The maximum number of tokens of a prompt and its answer together; None if the model does not say."""

    @property
    def bos_token_id(self) -> int:
        """The token before the first one of a text, whether or not the tokenizer adds it."""

    def answers(self, prompts: list[str], max_new_tokens: int, grammar: str | None = None) -> list[str]:
        """Greedy answers, in the order of `prompts`, within a grammar of guidance.py if there is one."""


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-probabilities along the last axis, bit-identical to scipy's, which a served model does not install (100 MB)."""
    shifted: NDArray[np.float64] = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities along the last axis, bit-identical to scipy's."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def token_logprobs(logits: Logits, tokens: list[int]) -> NDArray[np.float64]:
    """Log-probability of each token, [tokens], from the logits that predict it, [tokens, vocabulary]."""
    log_probabilities: NDArray[np.float64] = log_softmax(logits.astype(np.float64))
    return log_probabilities[np.arange(len(tokens)), tokens]


class Score(NamedTuple):
    """Of a completion: its log-probability, and whether each of its tokens is the most likely, as in greedy decoding."""

    logprob: float
    greedy: bool


def completion_scores(model: Scorer, requests: Requests) -> Iterator[tuple[int, list[Score]]]:
    """The index of each prompt and the scores of its completions, with the prompts in any order."""
    return scores_of(model.logits(requests), requests)


def scores_of(logits: Iterator[tuple[int, int, Logits]], requests: Requests) -> Iterator[tuple[int, list[Score]]]:
    """The same from logits as `Scorer.logits` yields them."""
    for index, chunks in groupby(logits, itemgetter(0)):
        yield index, [_score(requests[index][1][choice], parts) for choice, parts in groupby(chunks, itemgetter(1))]


def _score(completion: Tokens, chunks: Iterator[tuple[int, int, Logits]]) -> Score:
    logprobs: list[NDArray[np.float64]] = []
    greedy, start = True, 0
    for _, _, logits in chunks:
        tokens = completion[start : start + len(logits)]
        logprobs.append(token_logprobs(logits, tokens))
        greedy &= logits.argmax(axis=-1).tolist() == tokens
        start += len(tokens)
    return Score(float(np.concatenate(logprobs).sum()), greedy)


@dataclass(frozen=True)
class Likelihoods:
    """What a model makes of the possible answers to turns.

    Attributes:
        logprobs: log-probability of each label in the place of the expected answer, [turns, labels]; for free text that of the
            expected answer, [turns, 1].
        expected: index of the expected label, [turns]; 0 for free text.
        tokens: number of tokens of all expected answers.
    """

    logprobs: NDArray[np.float64]
    expected: NDArray[np.int64]
    tokens: int

    @property
    def perplexity(self) -> float:
        """Of the expected answers."""
        return float(np.exp(-self.logprobs[np.arange(len(self.expected)), self.expected].sum() / self.tokens))


def score(model: Scorer, turns: list[Turn], labels: Sequence[str] | None, source_max_len: int | None = None) -> Likelihoods:
    """Scores the completion of each turn and, with labels, every label in the place of the expected one.

    Args:
        model: to score.
        turns: of prepared rows.
        labels: the possible answers, or None for free text.
        source_max_len: maximum tokens of a row. The tokens of a completion after it were not trained and are not scored. None:
            all tokens are scored.
    """
    answers = [[turn.with_answer(label) for label in labels or [turn.expected]] for turn in turns]
    requests = [encode_request(model, turn.prompt, texts, source_max_len) for turn, texts in zip(turns, answers, strict=True)]
    logprobs = np.zeros((len(turns), len(labels or [""])))
    for index, scores in tqdm(completion_scores(model, requests), total=len(turns), desc="likelihoods", unit="row"):
        logprobs[index] = [completion.logprob for completion in scores]
    expected = [labels.index(turn.expected) if labels else 0 for turn in turns]
    tokens = sum(len(completions[choice]) for (_, completions), choice in zip(requests, expected, strict=True))
    return Likelihoods(logprobs, np.array(expected), tokens)


def encode_request(model: Scorer, prompt: str, answers: list[str], source_max_len: int | None) -> tuple[Tokens, list[Tokens]]:
    """A prompt and its completions in the model's tokens, truncated to `source_max_len` tokens; None: not truncated."""
    tokens = model.encode_prompt(prompt)
    return tokens, [truncate(model.encode_completion(answer, prompt), tokens, source_max_len) for answer in answers]


def agreement(first: Logits, second: Logits) -> tuple[int, float]:
    """Compares the predictions of two models for one completion, from the logits of each, [tokens, vocabulary].

    Returns:
        The number of tokens for which both predict the same most likely token, and the sum over the tokens of the
        Kullback-Leibler divergence of the second model from the first, in nats.
    """
    p, q = (log_softmax(logits.astype(np.float64)) for logits in (first, second))
    same = int((first.argmax(-1) == second.argmax(-1)).sum())
    np.subtract(p, q, out=q)
    np.exp(p, out=p)
    p *= q
    return same, float(p.sum())
