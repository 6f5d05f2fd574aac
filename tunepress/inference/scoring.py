"""Likelihoods: how probable a model holds a text, in place of what it says when asked."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tunepress.text.tokenizer import Tokens, truncate

BINS = 10  # of the calibration error
CHUNK = 128  # tokens of a completion whose logits are in memory at a time, each with the whole vocabulary

Requests = Sequence[tuple[Tokens, list[Tokens]]]  # prompts, each with its completions
Logits = NDArray[np.float32]


class Scorer(Protocol):
    """A model whose logits can be read, in torch or in onnxruntime-genai."""

    def encode_prompt(self, text: str) -> list[int]:
        """Tokens of a prompt."""

    def encode_completion(self, text: str) -> list[int]:
        """Tokens of a completion and the end of the answer."""

    def logits(self, asked: Requests) -> Iterator[tuple[int, int, Logits]]:
        """The logits by which completions are chosen after their prompt, in chunks.

        Args:
            asked: prompts, each with its completions, as many for one as for another.

        Yields:
            The number of a prompt, that of one of its completions, and the logits of its next at most CHUNK tokens, [tokens,
            vocabulary]. The chunks of a completion come one after the other, as do the completions of a prompt.
        """


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-probabilities along the last axis, to the bit as scipy has them: a served model goes without its 100 MB."""
    shifted: NDArray[np.float64] = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities along the last axis, to the bit as scipy has them."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def token_logprobs(logits: Logits, tokens: list[int]) -> NDArray[np.float64]:
    """Log-probability of each of `tokens`, [tokens], from the logits [tokens, vocabulary] that choose it."""
    log_probabilities: NDArray[np.float64] = log_softmax(logits.astype(np.float64))
    return log_probabilities[np.arange(len(tokens)), tokens]


def completion_logprobs(model: Scorer, asked: Requests) -> Iterator[tuple[int, list[float]]]:
    """The number of a prompt and the log-probability of each of its completions; prompts come in any order."""
    for number, chunks in groupby(model.logits(asked), itemgetter(0)):
        completions = asked[number][1]
        parts: list[list[NDArray[np.float64]]] = [[] for _ in completions]
        for _, place, logits in chunks:
            start = sum(map(len, parts[place]))
            parts[place].append(token_logprobs(logits, completions[place][start : start + len(logits)]))
        yield number, [float(np.concatenate(own).sum()) for own in parts]


def score(
    model: Scorer, rows: list[dict[str, Any]], labels: Sequence[str] | None, source_max_len: int | None = None
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Scores the expected completion of each row and, where there are labels, every label in its place.

    Args:
        model: what is scored.
        rows: prepared rows; a completion begins with what the row expects.
        labels: the answers there are, or None for free text.
        source_max_len: tokens of a row; what a completion has beyond them was not learned and does not count. None: all does.

    Returns:
        For each row the likeliest label and its probability among the labels (nothing for free text); and the figures:
        perplexity of the expected completions, and with labels likelihood_accuracy and calibration_error.
    """
    answers = [[label + row["completion"][len(row["expected"]) :] for label in labels or [row["expected"]]] for row in rows]
    asked = [encode_request(model, row["prompt"], texts, source_max_len) for row, texts in zip(rows, answers, strict=True)]
    sums = [[0.0]] * len(rows)
    for number, log_probabilities in tqdm(completion_logprobs(model, asked), total=len(rows), desc="likelihoods", unit="row"):
        sums[number] = log_probabilities
    own = [labels.index(row["expected"]) if labels else 0 for row in rows]
    tokens = sum(len(completions[right]) for (_, completions), right in zip(asked, own, strict=True))
    total = sum(one[right] for one, right in zip(sums, own, strict=True))
    figures: dict[str, Any] = {"perplexity": round(float(np.exp(-total / tokens)), 4)}
    if not labels:
        return [{} for _ in rows], figures
    best, confidence = np.argmax(sums, axis=1), np.max(softmax(np.array(sums)), axis=1)
    figures["likelihood_accuracy"] = round(float(np.mean(best == own)), 4)
    figures["calibration_error"] = round(calibration_error(confidence, best == own), 4)
    return [{"top_label": labels[one], "confidence": f"{sure:.4f}"} for one, sure in zip(best, confidence, strict=True)], figures


def encode_request(model: Scorer, prompt: str, answers: list[str], source_max_len: int | None) -> tuple[Tokens, list[Tokens]]:
    """A prompt and its completions in the model's own tokens, as far as `source_max_len` tokens hold them; None: whole."""
    tokens = model.encode_prompt(prompt)
    return tokens, [truncate(model.encode_completion(answer), tokens, source_max_len) for answer in answers]


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Expected calibration error: how far, on average, the confidence of like rows is from the share that is right.

    Args:
        confidence: probability of the likeliest label, [rows], put in ten bins of equal width.
        right: whether that label is the expected one, [rows].

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(confidence[bins == one].sum() - right[bins == one].sum()) for one in range(BINS)]
    return float(sum(gaps) / len(confidence))


def agreement(first: Logits, second: Logits) -> tuple[int, float]:
    """How alike two models choose the tokens of one completion, from the logits [tokens, vocabulary] of each.

    Returns:
        The tokens for which both hold the same most probable, and the sum over the tokens of the Kullback-Leibler divergence
        of the second model from the first, in nats.
    """
    p, q = (log_softmax(logits.astype(np.float64)) for logits in (first, second))
    same = int((first.argmax(-1) == second.argmax(-1)).sum())
    np.subtract(p, q, out=q)
    np.exp(p, out=p)
    p *= q
    return same, float(p.sum())
