"""The gate: which metric each bound is compared with, and what a broken one says."""

from dataclasses import replace
from typing import Any

import pytest

from stages.report.figures import Run
from stages.report.gate import Verdict, verdicts
from tests.stages.recipes import NO_GATE


def retained(accuracy: float, perplexity: float) -> dict[str, Any]:
    return {"retained": {"choices": {"accuracy": accuracy, "rows": 100}, "text": {"perplexity": perplexity, "tokens": 900}}}


EVALUATE: dict[str, dict[str, Any]] = {
    "base": {"accuracy": 0.0, "likelihood_accuracy": 0.2} | retained(0.6, 20.0),
    "merged": {"accuracy": 0.95, "likelihood_accuracy": 0.96} | retained(0.5, 19.0),
    "onnx": {"accuracy": 0.9, "likelihood_accuracy": 0.96, "invalid_rate": 0.02, "nll": 0.3, "brier": 0.2}
    | {"calibration_error": 0.09, "calibrated": {"calibration_error": 0.03, "brier": 0.15, "nll": 0.2}}
    | retained(0.45, 19.5),
}
COMPARE = {"top1_agreement": 0.97, "tokenized_differently": 3, "flipped_share": 0.02}
BENCHMARK = {
    name: {"batch_1": {"decode_tokens_per_second": {"median": speed}}} for name, speed in (("merged", 20.0), ("onnx", 50.0))
}


def run(evaluate: dict[str, dict[str, Any]]) -> Run:
    return Run({}, {}, {"size_mb": 120.0}, COMPARE, evaluate, BENCHMARK)


def verdict(**bounds: Any) -> Verdict:
    """The only verdict of a gate with one bound."""
    (only,) = verdicts(replace(NO_GATE, **bounds), run(EVALUATE))
    return only


@pytest.mark.parametrize(
    ("name", "value", "kept", "broken"),
    [
        ("max_drop", 0.05, 0.05, 0.04),
        ("min_gain", 0.75, 0.75, 0.76),  # over the most likely label of base, not over its answers
        ("max_invalid_rate", 0.02, 0.02, 0.01),
        ("max_calibration_error", 0.03, 0.03, 0.02),  # after the temperature
        ("max_forgetting", 0.15, 0.15, 0.14),  # of 0.6 in choices; the text became likelier
        ("max_flipped_share", 0.02, 0.02, 0.01),
        ("min_top1_agreement", 0.97, 0.97, 0.98),
        ("max_tokenized_differently", 3, 3, 2),
        ("max_size_mb", 120.0, 120, 119.9),
        ("max_latency_ratio", 0.4, 0.4, 0.39),  # seconds for a token of onnx by those of merged
    ],
)
def test_a_bound_is_kept_up_to_its_very_value(name: str, value: float, kept: float, broken: float) -> None:
    assert verdict(**{name: kept}) == Verdict(name, kept, value)
    assert verdict(**{name: kept}).passed
    assert verdict(**{name: broken}) == Verdict(name, broken, value)
    assert not verdict(**{name: broken}).passed


def test_a_broken_bound_says_which_and_what_was_measured() -> None:
    assert str(verdict(max_drop=0.03)) == "max_drop 0.05 > 0.03"
    assert str(verdict(min_gain=0.8)) == "min_gain 0.75 < 0.8"


def test_a_bound_over_a_baseline_is_for_onnx() -> None:
    measured = replace(run(EVALUATE), baselines={"tfidf": {"accuracy": 0.88}, "majority": {"accuracy": 0.3}})
    gate = replace(NO_GATE, min_gain_over={"tfidf": 0.03, "nearest": 0.5})  # there is no nearest for labels
    assert [str(verdict) for verdict in verdicts(gate, measured)] == ["min_gain_over.tfidf 0.02 < 0.03"]
    assert measured.best_baseline == "tfidf"


def test_without_bounds_there_are_no_verdicts() -> None:
    assert verdicts(NO_GATE, run(EVALUATE)) == []


def test_free_text_is_compared_by_its_exact_matches_and_is_never_invalid() -> None:
    evaluate: Any = {name: {"exact_match": value} for name, value in (("base", 0.0), ("merged", 0.5), ("onnx", 0.75))}
    results = verdicts(replace(NO_GATE, max_drop=0.0, min_gain=0.5, max_invalid_rate=0.0), run(evaluate))
    assert [(verdict.name, verdict.value, verdict.passed) for verdict in results] == [
        ("max_drop", -0.25, True),
        ("min_gain", 0.5, True),
        ("max_invalid_rate", 0.0, True),
    ]
