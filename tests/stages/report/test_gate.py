"""The gate: which figure each bound is held against, and what a failed one says."""

from dataclasses import replace
from typing import Any

import pytest

from stages.report.gate import Verdict, latency_ratio, verdicts
from tests.stages.recipes import NO_GATE
from tunepress.config.evaluate import Gate

EVALUATE: dict[str, dict[str, Any]] = {
    "base": {"accuracy": 0.2},
    "merged": {"accuracy": 0.95},
    "onnx": {"accuracy": 0.9, "invalid_rate": 0.02},
}
COMPARE = {"top1_agreement": 0.97, "tokenized_differently": 3}
REST = {"size_mb": 120.0, "latency_ratio": 0.4}


def verdict(**bounds: Any) -> Verdict:
    """The only verdict of a gate with one bound."""
    (found,) = verdicts(replace(NO_GATE, **bounds), EVALUATE, COMPARE, REST)
    return found


@pytest.mark.parametrize(
    ("name", "value", "kept", "broken"),
    [
        ("max_drop", 0.05, 0.05, 0.04),
        ("min_gain", 0.75, 0.75, 0.76),
        ("max_invalid_rate", 0.02, 0.02, 0.01),
        ("min_top1_agreement", 0.97, 0.97, 0.98),
        ("max_tokenized_differently", 3, 3, 2),
        ("max_size_mb", 120.0, 120, 119.9),
        ("max_latency_ratio", 0.4, 0.4, 0.39),
    ],
)
def test_a_bound_is_kept_up_to_its_very_value(name: str, value: float, kept: float, broken: float) -> None:
    assert verdict(**{name: kept}) == Verdict(name, kept, value, passed=True)
    assert verdict(**{name: broken}) == Verdict(name, broken, value, passed=False)


def test_a_failed_bound_says_which_and_by_how_much() -> None:
    assert str(verdict(max_drop=0.03)) == "evaluate.gate.max_drop: 0.05 is 0.02 over the bound of 0.03"
    assert str(verdict(min_gain=0.8)) == "evaluate.gate.min_gain: 0.75 is 0.05 below the bound of 0.8"


def test_without_bounds_there_are_no_verdicts() -> None:
    assert verdicts(NO_GATE, EVALUATE, COMPARE, REST) == []


def test_free_text_is_held_against_its_exact_matches_and_is_never_invalid() -> None:
    evaluate: Any = {name: {"exact_match": value} for name, value in (("base", 0.0), ("merged", 0.5), ("onnx", 0.75))}
    found = verdicts(Gate(0.0, 0.5, 0.0, None, None, None, None), evaluate, COMPARE, REST)
    assert [(one.name, one.value, one.passed) for one in found] == [
        ("max_drop", -0.25, True),
        ("min_gain", 0.5, True),
        ("max_invalid_rate", 0.0, True),
    ]


def test_the_latency_ratio_is_seconds_a_token_of_onnx_by_those_of_merged() -> None:
    speeds = {"merged": 20.0, "onnx": 80.0}
    benchmark = {name: {"batch_1": {"decode_tokens_per_second": {"median": speed}}} for name, speed in speeds.items()}
    assert latency_ratio(benchmark) == 0.25
