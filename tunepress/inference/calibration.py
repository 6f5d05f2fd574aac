"""Calibration: whether a model's probabilities of labels are right as often as they say, and the temperature that makes them so.

Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl
from tunepress.core.paths import VALIDATION_ROWS
from tunepress.inference.scoring import Likelihoods, Scorer, completion_scores, score, softmax
from tunepress.text.chat_prompt import ChatPrompt
from tunepress.text.prompt import Prompt
from tunepress.text.segments import evaluated, evenly_spaced
from tunepress.text.tokenizer import Tokens

BINS = 10  # of the expected calibration error
COVERAGES = (0.5, 0.8, 0.9, 0.95)
MAX_ROWS = 256  # a single number needs no more, and a large model answers few rows a second
# Multiples of 0.05: the int4 kernels of another CPU round differently, and should still give the same temperature. Many rows
# that are all right would make it 0, hence the lower bound.
TEMPERATURES = np.arange(10, 201) / 20
SIGNIFICANT = 3.84  # 95% quantile of the chi-squared distribution with one degree of freedom

Array = NDArray[np.float64]


def label_probabilities(logprobs: Array, temperature: float | None) -> Array:
    """Probabilities of labels, relative to each other.

    Args:
        logprobs: log-probability of each label, [..., labels].
        temperature: divides them; None changes nothing.
    """
    return softmax(logprobs / (temperature or 1.0))


def answer_probabilities(model: Scorer, prompt: Tokens, answers: list[Tokens], temperature: float | None) -> list[float]:
    """The probability of each of several answers to a prompt, relative to each other."""
    ((_, scores),) = completion_scores(model, [(prompt, answers)])
    logprobs = np.array([answer.logprob for answer in scores])
    probabilities: list[float] = label_probabilities(logprobs, temperature).tolist()
    return probabilities


def abstention_bound(option: float | None, prompt: Prompt, chat: ChatPrompt) -> float:
    """The probability of the most likely label below which a model gives none; 0: it always does.

    Args:
        option: of --abstain-below; None: that of prompt.json.
        prompt: of the model.
        chat: renders what the model learned to write for a label.

    Raises:
        InputError: it is not a probability below 1, or the model has no labels alone.
    """
    if option is not None and not 0 <= option < 1:
        raise InputError(f"--abstain-below: must be a probability below 1, got {option}; 0 never abstains")
    bound = (prompt.abstain_below if option is None else option) or 0.0
    if bound and not chat.label_completions():
        raise InputError("--abstain-below: this model has no probabilities of labels alone; leave it out")
    return bound


def fit_temperature(model: Scorer, prompt: Prompt) -> float | None:
    """The temperature with the lowest negative log-likelihood on the validation rows; None without labels or such rows.

    It is 1 unless another one is better by more than chance (likelihood-ratio test): fitted on few rows it would often be worse.
    """
    rows = read_jsonl(VALIDATION_ROWS)
    if not prompt.labels or not rows:
        return None
    turns = evaluated(evenly_spaced(rows, MAX_ROWS), all_turns=False)
    scored = score(model, turns, prompt.labels, prompt.source_max_len)
    losses = {
        float(value): negative_log_likelihood(label_probabilities(scored.logprobs, value), scored.expected)
        for value in TEMPERATURES
    }
    best = min(losses, key=losses.__getitem__)
    return best if 2 * len(turns) * (losses[1.0] - losses[best]) > SIGNIFICANT else 1.0


def label_metrics(likelihoods: Likelihoods, temperature: float | None, abstain_below: float | None) -> dict[str, Any]:
    """What the probabilities of labels are worth.

    Args:
        likelihoods: of labels.
        temperature: of the model; None: not calibrated.
        abstain_below: the probability of the most likely label below which the model does not answer; None: it always does.

    Returns:
        likelihood_accuracy; brier, nll and calibration_error, and the same after the temperature in `calibrated`;
        accuracy_at_coverage, of the share of rows with the highest probability; with `abstain_below`, the share of rows that
        are answered, coverage, and their accuracy, selective_accuracy, which is None if there are none.
    """
    expected = likelihoods.expected
    before, after = (label_probabilities(likelihoods.logprobs, value) for value in (None, temperature))
    right, confidence = after.argmax(axis=1) == expected, after.max(axis=1)
    metrics: dict[str, Any] = {"likelihood_accuracy": round(float(right.mean()), 4), **probability_metrics(before, expected)}
    if temperature:
        metrics |= {"temperature": temperature, "calibrated": probability_metrics(after, expected)}
    by_confidence = right[np.argsort(-confidence, kind="stable")]
    metrics["accuracy_at_coverage"] = {
        f"{coverage:g}": round(float(by_confidence[: max(1, round(coverage * len(right)))].mean()), 4) for coverage in COVERAGES
    }
    if abstain_below is not None:
        answered = confidence >= abstain_below
        metrics["coverage"] = round(float(answered.mean()), 4)
        metrics["selective_accuracy"] = round(float(right[answered].mean()), 4) if answered.any() else None
    return metrics


def probability_metrics(probabilities: Array, expected: NDArray[np.int64]) -> dict[str, float]:
    """Calibration error, Brier score (the sum over the labels) and negative log-likelihood in nats.

    Args:
        probabilities: [rows, labels].
        expected: index of the right label, [rows].
    """
    right = probabilities.argmax(axis=1) == expected
    difference = probabilities - np.eye(probabilities.shape[1])[expected]
    return {
        "calibration_error": round(calibration_error(probabilities.max(axis=1), right), 4),
        "brier": round(float((difference**2).sum(axis=1).mean()), 4),
        "nll": round(negative_log_likelihood(probabilities, expected), 4),
    }


def negative_log_likelihood(probabilities: Array, expected: NDArray[np.int64]) -> float:
    """Of the right labels, in nats, the mean over the rows."""
    right = probabilities[np.arange(len(expected)), expected]
    return float(-np.log(np.maximum(right, np.finfo(np.float64).tiny)).mean())


def calibration_error(confidence: Array, right: NDArray[np.bool_]) -> float:
    """Expected calibration error: the mean difference between confidence and accuracy over ten bins of equal width.

    Args:
        confidence: probability of the most likely label, [rows].
        right: whether that label is the expected one, [rows].

    Source: equation 3 of the article.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(confidence[bins == number].sum() - right[bins == number].sum()) for number in range(BINS)]
    return float(sum(gaps) / len(confidence))
