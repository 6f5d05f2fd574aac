"""The clone of a search: the metrics of its experiments, and measurements of another machine."""

import subprocess
from pathlib import Path

import pytest
from dvc.cli import main as dvc

from tools.search.clone import Clone
from tools.search.metrics import interval, metrics_of
from tunepress.core.params import read_yaml

DVC_YAML = """stages:
  evaluate:
    cmd: mkdir -p metrics/evaluate && echo '{"accuracy_low":0.8,"accuracy_high":0.9,"note":""}' > metrics/evaluate/merged.json
    outs: [metrics/evaluate/merged.json]
  benchmark:
    cmd: mkdir -p metrics/benchmark && echo '{"load_seconds":1.5}' > metrics/benchmark/onnx.json
    outs: [metrics/benchmark/onnx.json]
  report:
    cmd: echo '{"accuracy":0.87,"gate":"passed"}' > metrics/summary.json && echo '{"tokens_s":80}' > metrics/speed.json
    deps: [metrics/benchmark/onnx.json]
    metrics: [{metrics/summary.json: {cache: false}}, {metrics/speed.json: {cache: false}}]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which everything has run and is committed."""
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    (tmp_path / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    assert dvc(["init", "--quiet"]) == dvc(["repro", "--quiet"]) == 0
    git("add", "--all")
    git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--message", "run")
    return tmp_path


def git(*command: str) -> None:
    subprocess.run(["git", *command], check=True, capture_output=True)


def test_metrics_are_those_of_dvc_and_of_all_files_in_its_cache(project: Path) -> None:
    metrics = metrics_of("HEAD")
    assert metrics == {
        "accuracy": 0.87,
        "tokens_s": 80.0,
        "passed": 1.0,
        "metrics/summary.json:accuracy": 0.87,
        "metrics/speed.json:tokens_s": 80.0,
        "metrics/evaluate/merged.json:accuracy_low": 0.8,
        "metrics/evaluate/merged.json:accuracy_high": 0.9,
        "metrics/benchmark/onnx.json:load_seconds": 1.5,
    }
    assert interval("metrics/evaluate/merged.json:accuracy", metrics) == (0.8, 0.9)


def test_metrics_that_are_not_in_the_cache_are_left_out(project: Path) -> None:
    (cached,) = [path for path in (project / ".dvc/cache").rglob("*") if path.is_file() and "load_seconds" in path.read_text()]
    cached.unlink()
    metrics = metrics_of("HEAD")
    assert metrics["accuracy"] == 0.87
    assert "metrics/benchmark/onnx.json:load_seconds" not in metrics


def test_measurements_of_another_machine_are_forgotten(project: Path) -> None:
    clone = Clone("mine", project / ".search/mine/clone", ["metrics/benchmark", "metrics/speed.json"])
    assert list(read_yaml(clone.folder / "dvc.lock")["stages"]) == ["evaluate"]
    assert (clone.folder / "metrics/summary.json").exists()
    assert not (clone.folder / "metrics/speed.json").exists()
    assert sorted(read_yaml(project / "dvc.lock")["stages"]) == ["benchmark", "evaluate", "report"]
    kept = (clone.folder / "dvc.lock").read_text(encoding="utf-8")
    assert kept in (project / "dvc.lock").read_text(encoding="utf-8")
