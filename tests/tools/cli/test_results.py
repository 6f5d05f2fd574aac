"""`make results`: the table of the last run, in which every model has a fair score."""

import sys
from pathlib import Path

import pytest

from stages.report.figures import Run
from stages.report.tables import scores
from tests.stages.run_files import new_run
from tools.cli import results
from tunepress.core.files import read_json, write_json
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
    choices, text = "choices, accuracy 0.610 / 0.550 / 0.540", "text, perplexity 24.100 / 30.200 / 31.500"
    assert f"Other subjects, base / merged / onnx: {choices}; {text}." in " ".join(table.split())


def test_free_text_has_no_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    new_run(tmp_path, labels=False)
    write_json(tmp_path / METRICS / "summary.json", {"gate": "passed"})
    table = printed(tmp_path, monkeypatch, capsys)
    assert row(table, "base")[:2] == ["base", "0.000"]
    assert "label" not in table


def test_calls_of_functions_are_reported_where_rows_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new_run(tmp_path, labels=False)
    write_json(tmp_path / METRICS / "summary.json", {"gate": "passed"})
    assert "Function calls" not in printed(tmp_path, monkeypatch, capsys)
    for name, right in (("base", 0.0), ("merged", 0.75), ("onnx", 0.5)):
        path = tmp_path / METRICS / "evaluate" / f"{name}.json"
        calls = {"tool_calls": 1200, "tool_call_accuracy": right, "tool_name_accuracy": 1.0}
        write_json(path, read_json(path) | calls)
    sentence = "Function calls with the right name and arguments: base 0.000, merged 0.750, onnx 0.500 of 1,200.\n"
    assert sentence in printed(tmp_path, monkeypatch, capsys)
    rows = {cells[0]: cells[1:] for cells in scores(Run.read()).rows}
    assert rows["tool calls"] == ["1,200"] * 3
    assert rows["tool call accuracy"] == ["0.000", "0.750", "0.500"]
    assert rows["tool name accuracy"] == ["1.000"] * 3


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
