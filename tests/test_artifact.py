"""dvc.yaml's artifact: the int4 model under a name and a version, with the way to its card and its figures."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dvc.cli import main as dvc
from gto.api import register
from omegaconf import OmegaConf


def git(*command: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    return subprocess.run(["git", *who, *command], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def published(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with our artifacts, two versions of its model registered, in a remote and no longer in the tree."""
    project = tmp_path / "project"
    (project / "models/onnx").mkdir(parents=True)
    (project / "metrics").mkdir()
    monkeypatch.chdir(project)
    ours: Any = OmegaConf.to_container(OmegaConf.load(root / "dvc.yaml"), resolve=False)
    outs = {
        "cmd": "true",
        "outs": ["models/onnx", "models/MODEL_CARD.md", "models/conformance.jsonl"],
        "metrics": [{"metrics/summary.json": {"cache": False}}],
    }
    OmegaConf.save({"stages": {"build": outs}, "artifacts": ours["artifacts"]}, "dvc.yaml")
    git("init", "--quiet")
    assert dvc(["init", "--quiet"]) == dvc(["remote", "add", "--quiet", "--default", "store", str(tmp_path / "store")]) == 0
    for number in (1, 2):
        for path in ("models/onnx/model.onnx", "models/MODEL_CARD.md", "models/conformance.jsonl", "metrics/summary.json"):
            Path(path).unlink(missing_ok=True)
            Path(path).write_text(str(number))
        assert dvc(["commit", "--force", "--quiet"]) == 0
        git("add", "--all")
        git("commit", "--quiet", "--message", str(number))
        register(".", "int4", "HEAD", author="test", author_email="test@example.com")
    assert dvc(["push", "--quiet"]) == 0
    shutil.rmtree("models")
    monkeypatch.chdir(tmp_path)
    return project


@pytest.mark.slow
@pytest.mark.parametrize(("options", "tag", "number"), [(["--rev", "v0.0.1"], "int4@v0.0.1", "1"), ([], "int4@v0.0.2", "2")])
def test_a_version_is_fetched_by_its_name_and_its_tag_leads_to_card_and_figures(
    options: list[str], tag: str, number: str, published: Path
) -> None:
    meta = OmegaConf.load(published / "dvc.yaml").artifacts.int4.meta
    assert dvc(["artifacts", "get", str(published), "int4", "--out", "int4", *options]) == 0
    for name in ("card", "conformance"):
        assert dvc(["get", str(published), meta[name], "--rev", tag, "--out", name]) == 0
    figures = git("-C", str(published), "show", f"{tag}:{meta.metrics}")
    fetched = [Path(name).read_text() for name in ("int4/model.onnx", "card", "conformance")]
    assert [*fetched, figures] == [number] * 4
