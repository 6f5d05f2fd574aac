"""`make report`: the report with the experiments that DVC knows of, real ones of a small repo."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.command import run_module
from tests.stages.run_files import new_run
from tools.cli.experiments import read, table
from tools.cli.report import read_experiments
from tunepress.core.errors import InputError

DVC_YAML = """stages:
  press:
    cmd: python press.py
    deps: [press.py]
    params: [size_mb, accuracy]
    metrics:
      - metrics/summary.json: {cache: false}
      - metrics/other.json: {cache: false}
"""
PRESS = """import json, yaml
figures = yaml.safe_load(open("params.yaml"))
summary = {"onnx": figures} if figures["size_mb"] == 100 else figures  # the first commit is from before it was flat
json.dump(summary, open("metrics/summary.json", "w"))
json.dump({"size_mb": 1, "onnx": {"size_mb": 1}}, open("metrics/other.json", "w"))
"""


def run(folder: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "HOME": str(folder.parent)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit that lacks the metrics it declares, two that have them, an experiment on each of these, and a changed tree."""
    folder = tmp_path_factory.mktemp("experiments") / "repo"
    (folder / "metrics").mkdir(parents=True)
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    run(folder, "git", "config", "user.name", "test")
    run(folder, "git", "config", "user.email", "test@example.com")
    run(folder, "dvc", "init", "--quiet")
    (folder / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    (folder / "press.py").write_text(PRESS, encoding="utf-8")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "nothing has run yet")
    for size, name in ((100, "older"), (200, "newer")):
        (folder / "params.yaml").write_text(f"size_mb: {size}\naccuracy: 0.9\n", encoding="utf-8")
        run(folder, "dvc", "repro", "--quiet")
        run(folder, "git", "add", "--all")
        run(folder, "git", "commit", "--quiet", "--message", name)
        run(folder, "dvc", "exp", "run", "--quiet", "--name", name, "--set-param", f"accuracy={0.9 + size / 10000}")
        run(folder, "git", "checkout", "--quiet", ".")
    (folder / "params.yaml").write_text("size_mb: 300\naccuracy: 0.8\n", encoding="utf-8")
    run(folder, "dvc", "repro", "--quiet")
    return folder


@pytest.mark.slow
def test_experiments_of_all_commits_are_found_and_the_working_tree_is_marked(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo)
    experiments = read_experiments("accuracy")
    first, *rest = experiments
    assert (first.name, first.size_mb, first.score, first.workspace) == ("workspace", 300, 0.8, True)
    assert not any(experiment.workspace for experiment in rest)
    places = {experiment.name: (experiment.size_mb, experiment.score) for experiment in rest}
    assert places.pop("main") == (200, 0.9)
    assert places.pop("newer") == (200, 0.92)
    assert places.pop("older") == (100, 0.91)
    ((name, place),) = places.items()
    assert re.fullmatch("[0-9a-f]{7}", name)
    assert place == (100, 0.9)


@pytest.mark.slow
def test_a_commit_without_metrics_is_shown_without_them(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo)
    rows = read(num=-1)
    first = rows[-1]
    assert "metrics/summary.json:size_mb" not in first
    assert "!" not in [value for row in rows for value in row.values()]
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(rows))
    shown = capture.get()
    assert "!" not in shown
    assert first["rev"] in shown


@pytest.mark.slow
def test_a_score_that_nobody_has_finds_nothing(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo)
    assert read_experiments("exact_match") == []


def test_a_folder_without_dvc_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        read_experiments("accuracy")
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_the_page_lies_in_the_root_and_has_the_experiments(repo: Path, root: Path) -> None:
    for name in ("summary.json", "other.json"):  # new_run makes all but these
        assert (repo / "metrics" / name).exists()
    new_run(repo)
    kept = (repo / "params.yaml").read_bytes()
    (repo / "params.yaml").write_bytes((root / "params.yaml").read_bytes())
    environment = os.environ | {"PYTHONPATH": str(root), "HOME": str(repo.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli.report"], cwd=repo, env=environment, capture_output=True, text=True, timeout=120
    )
    (repo / "params.yaml").write_bytes(kept)
    assert (done.returncode, done.stdout) == (0, "report.html: 5 runs side by side\n"), done.stderr
    html = (repo / "report.html").read_text(encoding="utf-8")
    table = html[html.index('id="experiments"') :]
    assert re.findall(r'<th scope="row">([^<]+)</th>', table[: table.index("</table>")])[:2] == ["workspace", "main"]
    assert 'id="sizes-experiment-4"' in html


def test_a_run_that_has_not_ended_is_told_in_one_line(tmp_path: Path, root: Path) -> None:
    done = run_module("tools.cli.report", folder=tmp_path)
    assert (done.returncode, done.stderr) == (1, "report: metrics/prepare.json: not found; run `make repro`\n")
