"""Metrics of likelihoods: four digits, ten bins, and the number of tokens on which two models agree."""

import math

import numpy as np
import pytest

from tests.tunepress.inference.test_scoring import Dice, row
from tunepress.inference.scoring import agreement, calibration_error, log_softmax, score, softmax


def test_figures_are_rounded_to_four_digits() -> None:
    model = Dice({"y": 0.6, "n": 0.3, "\0": 0.1})
    _, metrics = score(model, [row("y"), row("n"), row("y")], ("n", "y"))
    assert metrics == {
        "perplexity": round((0.06**2 * 0.03) ** (-1 / 6), 4),
        "likelihood_accuracy": 0.6667,
        "calibration_error": 0.0,  # sure of two in three, and right in two of three
    }
    _, metrics = score(model, [row("y")] * 6 + [row("n")], ("n", "y"))
    assert metrics["calibration_error"] == 0.1905  # 6/7 - 2/3


def test_rows_keep_their_own_scores_in_whatever_order_the_model_gives_them() -> None:
    model = Dice({"a": 0.5, "b": 0.3, "c": 0.1, "\0": 0.1})
    answers, metrics = score(model, [row("aa"), row("b"), row("c")], ("aa", "b", "c"))  # aa: 0.025, b: 0.03, c: 0.01
    assert answers == [{"top_label": "b", "confidence": "0.4615"}] * 3
    assert metrics["likelihood_accuracy"] == 0.3333
    assert metrics["perplexity"] == round((0.025 * 0.03 * 0.01) ** (-1 / 7), 4)


def test_the_calibration_error_has_ten_bins_of_equal_width() -> None:
    right, wrong = np.array([True, False]), np.array([False, False])
    assert calibration_error(np.array([0.81, 0.89]), right) == pytest.approx(0.35)  # of one bin
    assert calibration_error(np.array([0.79, 0.81]), right) == pytest.approx((0.21 + 0.81) / 2)  # of two
    assert calibration_error(np.array([0.89, 0.91]), right) == pytest.approx((0.11 + 0.91) / 2)
    assert calibration_error(np.array([0.95, 1.0]), right) == pytest.approx(0.475)  # 1 is in the last one
    assert calibration_error(np.array([0.0, 0.05]), wrong) == pytest.approx(0.025)


def test_the_divergence_is_of_the_second_from_the_first_and_summed_over_the_tokens() -> None:
    first = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], dtype=np.float32))
    second = np.log(np.array([[0.25, 0.5, 0.25], [0.2, 0.6, 0.2]], dtype=np.float32))
    expected = 0.25 * math.log(2) + 0.4 * math.log(3)
    same, divergence = agreement(first, second)
    assert same == 0
    assert divergence == pytest.approx(expected, abs=1e-6)
    assert agreement(first, first)[0] == 2


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7)])
def test_probabilities_are_along_the_last_axis(shape: tuple[int, ...]) -> None:
    logits = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_allclose(softmax(logits).sum(axis=-1), 1)
    np.testing.assert_allclose(np.exp(log_softmax(logits)), softmax(logits))
