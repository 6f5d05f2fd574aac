"""gate: a broken bound fails the pipeline and not an experiment."""

from pathlib import Path

import pytest

from stages import gate
from tunepress.core.errors import InputError
from tunepress.core.files import write_json
from tunepress.core.paths import METRICS


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(gate.EXPERIMENT, raising=False)


def summarize(broken: str = "") -> None:
    """What report writes."""
    write_json(METRICS / "summary.json", {"accuracy": 0.9, "gate": broken or gate.PASSED})


def test_broken_bounds_fail_in_one_line_that_says_by_how_much() -> None:
    summarize("max_drop 0.08 > 0.05, max_size_mb 117 > 100, min_gain 0.15 < 0.2")
    with pytest.raises(InputError) as failed:
        gate.main(gate.Config())
    assert str(failed.value) == (
        "gate.max_drop: 0.08 is 0.03 over the bound of 0.05; gate.max_size_mb: 117 is 17 over the bound of 100; "
        "gate.min_gain: 0.15 is 0.05 below the bound of 0.2"
    )


def test_an_experiment_is_kept_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    summarize("max_drop 0.08 > 0.05")
    monkeypatch.setenv(gate.EXPERIMENT, "0" * 40)
    assert gate.main(gate.Config()) == "not passed: gate.max_drop: 0.08 is 0.03 over the bound of 0.05"


def test_a_model_that_keeps_every_bound_passes() -> None:
    summarize()
    assert gate.main(gate.Config()) == "passed"


def test_a_summary_that_is_missing_is_named() -> None:
    with pytest.raises(InputError, match=r"metrics/summary\.json: not found; run `make repro`"):
        gate.main(gate.Config())
