"""judge and enforce: a broken bound fails the pipeline and not an experiment."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages import enforce, judge
from tests.stages.recipes import NO_GATE, evaluation
from tunepress.core.errors import InputError
from tunepress.core.files import write_json
from tunepress.core.paths import METRICS

KEPT = {"name": "max_drop", "bound": 0.05, "value": 0.01, "passed": True}
BROKEN = {"name": "max_drop", "bound": 0.05, "value": 0.08, "passed": False}
TOO_LARGE = {"name": "max_size_mb", "bound": 100.0, "value": 117.0, "passed": False}


@pytest.fixture(autouse=True)
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(enforce.EXPERIMENT, raising=False)
    for name, accuracy in (("base", 0.1), ("merged", 0.9), ("onnx", 0.82)):
        write_json(METRICS / "evaluate" / f"{name}.json", {"accuracy": accuracy, "invalid_rate": 0.0})
    for name, speed in (("merged", 10.0), ("onnx", 40.0)):
        write_json(METRICS / "benchmark" / f"{name}.json", {"batch_1": {"decode_tokens_per_second": {"median": speed}}})
    write_json(METRICS / "compare.json", {"top1_agreement": 0.99, "tokenized_differently": 0})
    write_json(METRICS / "build.json", {"size_mb": 117.0})


def judged(**bounds: float) -> Any:
    """What judge writes for a gate."""
    gate = type(NO_GATE)(**(vars(NO_GATE) | bounds))
    judge.main(judge.Config(evaluation(gate=gate)))
    return json.loads((METRICS / "gate.json").read_text(encoding="utf-8"))


def test_every_bound_that_is_set_is_told_with_what_was_measured() -> None:
    assert judged(max_drop=0.1, max_latency_ratio=0.25, max_size_mb=100.0) == {
        "passed": False,
        "bounds": [
            {"name": "max_drop", "bound": 0.1, "value": 0.08, "passed": True},
            {"name": "max_size_mb", "bound": 100.0, "value": 117.0, "passed": False},
            {"name": "max_latency_ratio", "bound": 0.25, "value": 0.25, "passed": True},
        ],
    }
    assert judged() == {"passed": True, "bounds": []}


def test_a_metric_that_is_missing_is_named() -> None:
    (METRICS / "compare.json").unlink()
    with pytest.raises(InputError, match=r"metrics/compare\.json: not found; run `make repro`"):
        judged(max_drop=0.1)


def test_broken_bounds_fail_in_one_line_that_says_by_how_much() -> None:
    write_json(METRICS / "gate.json", {"passed": False, "bounds": [BROKEN, TOO_LARGE]})
    with pytest.raises(InputError) as failed:
        enforce.main(enforce.Config())
    assert str(failed.value) == (
        "evaluate.gate.max_drop: 0.08 is 0.03 over the bound of 0.05; evaluate.gate.max_size_mb: 117 is 17 over the bound of 100"
    )


def test_an_experiment_is_kept_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(METRICS / "gate.json", {"passed": False, "bounds": [BROKEN, KEPT]})
    monkeypatch.setenv(enforce.EXPERIMENT, "0" * 40)
    assert enforce.main(enforce.Config()) == "not passed: evaluate.gate.max_drop: 0.08 is 0.03 over the bound of 0.05"


def test_kept_bounds_are_counted() -> None:
    write_json(METRICS / "gate.json", {"passed": True, "bounds": [KEPT]})
    assert enforce.main(enforce.Config()) == "1 bounds kept"
