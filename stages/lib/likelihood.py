"""Likelihoods: how probable a model holds a text, in place of what it says when asked."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

BINS = 10  # of the calibration error

Logits = NDArray[np.float32]
Tokens = list[int]


class Scorer(Protocol):
    """A model whose logits can be read, in torch or in onnxruntime-genai."""

    def encode_prompt(self, text: str) -> list[int]:
        """Tokens of a prompt."""

    def encode_completion(self, text: str) -> list[int]:
        """Tokens of a completion and the end of the answer."""

    def logits(self, asked: Sequence[tuple[Tokens, list[Tokens]]]) -> Iterator[tuple[int, list[Logits]]]:
        """The logits by which completions are chosen behind their prompt.

        Args:
            asked: prompts, each with its completions, as many for one as for another.

        Yields:
            The number of a prompt and for each of its completions [tokens of the completion, vocabulary]; in any order.
        """


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-probabilities along the last axis, to the bit as scipy has them: a served model goes without its 100 MB."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probabilities: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_probabilities


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities along the last axis, to the bit as scipy has them."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def chosen(logits: Logits, tokens: list[int]) -> NDArray[np.float64]:
    """Log-probability of each of `tokens`, [tokens], from the logits [tokens, vocabulary] that choose it."""
    log_probabilities: NDArray[np.float64] = log_softmax(logits.astype(np.float64))
    return log_probabilities[np.arange(len(tokens)), tokens]


def totals(found: list[Logits], completions: list[Tokens]) -> list[float]:
    """Log-probability of each of several completions of one prompt, from the logits that choose them."""
    return [float(chosen(logits, tokens).sum()) for logits, tokens in zip(found, completions, strict=True)]


def score(model: Scorer, rows: list[dict[str, Any]], labels: Sequence[str] | None) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Scores the expected completion of each row and, where there are labels, every label in its place.

    Args:
        model: what is scored.
        rows: prepared rows; a completion begins with what the row expects.
        labels: the answers there are, or None for free text.

    Returns:
        For each row the likeliest label and its probability among the labels (nothing for free text); and the figures:
        perplexity of the expected completions, and with labels likelihood_accuracy and calibration_error.
    """
    answers = [[label + row["completion"][len(row["expected"]) :] for label in labels or [row["expected"]]] for row in rows]
    asked = [
        (model.encode_prompt(row["prompt"]), [model.encode_completion(answer) for answer in own])
        for row, own in zip(rows, answers, strict=True)
    ]
    sums = [[0.0]] * len(rows)
    for number, found in tqdm(model.logits(asked), total=len(rows), desc="likelihoods", unit="row"):
        sums[number] = totals(found, asked[number][1])
    own = [labels.index(row["expected"]) if labels else 0 for row in rows]
    tokens = sum(len(completions[right]) for (_, completions), right in zip(asked, own, strict=True))
    total = sum(one[right] for one, right in zip(sums, own, strict=True))
    figures: dict[str, Any] = {"perplexity": round(float(np.exp(-total / tokens)), 4)}
    if not labels:
        return [{} for _ in rows], figures
    best, confidence = np.argmax(sums, axis=1), np.max(softmax(np.array(sums)), axis=1)
    figures["likelihood_accuracy"] = round(float(np.mean(best == own)), 4)
    figures["calibration_error"] = round(calibration_error(confidence, best == own), 4)
    return [{"likeliest": labels[one], "confidence": f"{sure:.4f}"} for one, sure in zip(best, confidence, strict=True)], figures


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
    return same, float((np.exp(p) * (p - q)).sum())
