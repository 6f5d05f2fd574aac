"""`make results`: the table of the last run, in which every model has a fair score."""

import sys
from pathlib import Path

import pytest

from tests.stages.run_files import new_run
from tools.cli import results
from tunepress.core.files import write_json
from tunepress.core.paths import METRICS, TIMINGS


def printed(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["results"])
    results.main()
    return capsys.readouterr().out


def row(table: str, model: str) -> list[str]:
    """The cells of a model."""
    (line,) = [line for line in table.splitlines() if line.startswith(f"│ {model} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_base_is_measured_by_its_most_likely_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new_run(tmp_path)
    write_json(tmp_path / METRICS / "summary.json", {"gate": "passed"})
    table = printed(tmp_path, monkeypatch, capsys)
    assert row(table, "base") == ["base", "0.250", "0.199 to 0.308", "-", "-", "-", "-"]
    assert row(table, "merged")[1] == "0.954"
    assert "measured by its most likely label" in table


def test_free_text_has_no_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    new_run(tmp_path, labels=False)
    write_json(tmp_path / METRICS / "summary.json", {"gate": "passed"})
    table = printed(tmp_path, monkeypatch, capsys)
    assert row(table, "base")[:2] == ["base", "0.000"]
    assert "label" not in table


def test_the_seconds_of_the_stages_are_in_the_order_of_dvc_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new_run(tmp_path)
    write_json(tmp_path / METRICS / "summary.json", {"gate": "passed"})
    for seconds, name in enumerate(("report", "evaluate_onnx", "train")):
        write_json(tmp_path / TIMINGS / f"{name}.json", {"seconds": seconds})
    assert "Seconds of the last runs: train 2, evaluate_onnx 1, report 0\n" in printed(tmp_path, monkeypatch, capsys)


def test_a_broken_bound_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    new_run(tmp_path)
    write_json(tmp_path / METRICS / "summary.json", {"gate": "max_size_mb 117 > 100"})
    with pytest.raises(SystemExit, match=r"gate\.max_size_mb: 117 is 17 over the bound of 100"):
        printed(tmp_path, monkeypatch, capsys)
