"""Calibration, against scikit-learn and against models whose probabilities are wrong by a known temperature."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from tests.tunepress.inference.test_scoring import Dice
from tunepress.core.files import write_jsonl
from tunepress.core.paths import VALIDATION_ROWS
from tunepress.inference.calibration import (
    calibration_error,
    fit_temperature,
    label_metrics,
    label_probabilities,
    probability_metrics,
)
from tunepress.inference.scoring import Likelihoods
from tunepress.text.prompt import Prompt
from tunepress.text.segments import context, learned

PROMPT = Prompt("{a}", "{b}", ("n", "y"), source_max_len=100)


def drawn(rows: int, labels: int, seed: int = 0) -> Likelihoods:
    """Likelihoods that are right as often as they say, and labels drawn from them."""
    random = np.random.default_rng(seed)
    logprobs = random.normal(scale=2, size=(rows, labels))
    probabilities = label_probabilities(logprobs, None)
    expected = np.array([random.choice(labels, p=row) for row in probabilities])
    return Likelihoods(logprobs, expected, rows)


def validation(expected: str) -> None:
    rows = [{"source": "row", "segments": [context("which?"), learned(label, label)]} for label in expected]
    write_jsonl(VALIDATION_ROWS, rows)


@pytest.mark.parametrize("labels", [2, 4])
def test_the_metrics_of_probabilities_are_those_of_scikit_learn(labels: int) -> None:
    likelihoods = drawn(300, labels)
    probabilities, classes = label_probabilities(likelihoods.logprobs, None), list(range(labels))
    figures = probability_metrics(probabilities, likelihoods.expected)
    assert figures["nll"] == pytest.approx(log_loss(likelihoods.expected, probabilities, labels=classes), abs=1e-4)
    brier = brier_score_loss(likelihoods.expected, probabilities, labels=classes, scale_by_half=False)
    assert figures["brier"] == pytest.approx(brier, abs=1e-4)


def test_a_label_without_any_probability_has_a_finite_loss() -> None:
    figures = probability_metrics(np.array([[1.0, 0.0]]), np.array([1]))
    assert figures == {"calibration_error": 1.0, "brier": 2.0, "nll": pytest.approx(708.4, abs=0.1)}


def test_the_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55, 1.0])
    right = np.array([True, True, True, False, False, True, True])
    # 0.9 to 1: five rows, 4.8 expected and 4 right; 0.5 to 0.6: two rows, 1.1 expected and 1 right
    assert calibration_error(confidence, right) == pytest.approx((0.8 + 0.1) / 7)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0


def test_the_calibration_error_has_ten_bins_of_equal_width() -> None:
    right, wrong = np.array([True, False]), np.array([False, False])
    assert calibration_error(np.array([0.81, 0.89]), right) == pytest.approx(0.35)  # of one bin
    assert calibration_error(np.array([0.79, 0.81]), right) == pytest.approx((0.21 + 0.81) / 2)  # of two
    assert calibration_error(np.array([0.89, 0.91]), right) == pytest.approx((0.11 + 0.91) / 2)
    assert calibration_error(np.array([0.95, 1.0]), right) == pytest.approx(0.475)  # 1 is in the last one
    assert calibration_error(np.array([0.0, 0.05]), wrong) == pytest.approx(0.025)


def test_a_temperature_changes_no_decision_and_keeps_the_order_of_labels() -> None:
    logprobs = drawn(50, 4).logprobs
    order = np.argsort(logprobs, axis=1)
    for temperature in (0.5, 3.0):
        np.testing.assert_array_equal(np.argsort(label_probabilities(logprobs, temperature), axis=1), order)


def times(likelihoods: Likelihoods, factor: float) -> Likelihoods:
    return Likelihoods(factor * likelihoods.logprobs, likelihoods.expected, likelihoods.tokens)


def test_the_temperature_of_an_overconfident_model_repairs_its_probabilities() -> None:
    sure = times(drawn(2000, 4), 2.5)
    figures = label_metrics(sure, 2.5, None)
    assert figures["temperature"] == 2.5
    assert figures["calibration_error"] > 0.1 > 0.03 > figures["calibrated"]["calibration_error"]
    assert figures["calibrated"]["nll"] < figures["nll"]
    assert figures["calibrated"]["brier"] < figures["brier"]


def test_without_a_temperature_there_are_the_figures_before_it_alone() -> None:
    figures = label_metrics(drawn(100, 3), None, None)
    assert sorted(figures) == ["accuracy_at_coverage", "brier", "calibration_error", "likelihood_accuracy", "nll"]


def test_the_most_certain_rows_are_right_more_often() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.55, 0.45]] * 5)
    expected = np.array([0, 0, 0, 1] * 5)  # the two less certain ones are wrong
    figures = label_metrics(Likelihoods(np.log(probabilities), expected, 20), None, 0.75)
    assert figures["likelihood_accuracy"] == 0.5
    assert figures["accuracy_at_coverage"] == {"0.5": 1.0, "0.8": 0.625, "0.9": 0.5556, "0.95": 0.5263}
    assert (figures["coverage"], figures["selective_accuracy"]) == (0.5, 1.0)
    none = label_metrics(Likelihoods(np.log(probabilities), expected, 20), None, 0.95)
    assert (none["coverage"], none["selective_accuracy"]) == (0.0, None)


@pytest.mark.parametrize(
    ("right", "temperature"),
    [
        ("y" * 9 + "n", 1.0),  # 0.9 of both, as often as y is right
        ("yyyyyyyynn" * 20, pytest.approx(1.6, abs=0.05)),  # log(9) / log(4) = 1.58
        ("yyyyyyyynn", 1.0),  # two of ten are wrong by chance, too
        ("yn" * 20, 10.0),  # the highest: no temperature makes 0.9 to 0.5
        ("y" * 40, 0.5),  # the lowest
    ],
)
def test_the_temperature_is_fitted_on_the_validation_rows(
    right: str, temperature: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    validation(right)
    assert fit_temperature(Dice({"y": 0.9, "n": 0.1, "\0": 0.1}), PROMPT) == temperature


def test_the_temperature_does_not_depend_on_the_last_digits_of_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    validation("yyyyyyyynn" * 20)
    fitted = {fit_temperature(Dice({"y": 0.9 + noise, "n": 0.1, "\0": 0.1}), PROMPT) for noise in (-1e-3, 0, 1e-5, 1e-3)}
    assert len(fitted) == 1


@pytest.mark.parametrize("labels", [None, ("n", "y")])
def test_without_labels_or_validation_rows_there_is_no_temperature(
    labels: tuple[str, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    validation("" if labels else "yn")
    prompt = Prompt("{a}", "{b}", labels, source_max_len=100)
    assert fit_temperature(Dice({"y": 0.9, "n": 0.1, "\0": 0.1}), prompt) is None


def test_many_validation_rows_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    validation("yyyyyyyyyn" * 100)
    seen: list[int] = []

    class Counting(Dice):
        def encode_prompt(self, text: str) -> list[int]:
            seen.append(1)
            return super().encode_prompt(text)

    assert fit_temperature(Counting({"y": 0.9, "n": 0.1, "\0": 0.1}), PROMPT) == pytest.approx(1, abs=0.15)
    assert len(seen) < 1000
