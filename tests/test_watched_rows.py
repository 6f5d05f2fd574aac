"""DVC watches each file of rows, wherever the files are."""

import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from tunepress.core.params import compose_conf


@pytest.fixture
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `prepare` depends on, and its outputs."""
    folder = tmp_path / "project"
    for name in ("conf", "stages", "tunepress", "requirements", "data/raw"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "dvc.yaml", folder)
    for name in ("models/base/config.json", "data/prepared/train.jsonl", "metrics/prepare.json"):
        write(folder / name)
    monkeypatch.chdir(folder)
    Repo.init(no_scm=True).close()
    return folder


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "test_files"),
    [
        ("data/train.csv", "data/test.csv"),
        ("train.csv", "test.csv"),
        ("rowsA/", "rowsB/"),
        ("../elsewhere/train.csv", "test.csv"),
        ("{tmp}/elsewhere/train.csv", "test.csv"),
        ("data/own/*.csv", "test.csv"),
    ],
)
def test_a_change_of_any_file_of_rows_runs_prepare(project: Path, files: str, test_files: str) -> None:
    files = files.format(tmp=project.parent)
    changed = []
    for name, file in (("files", files), ("test_files", test_files)):
        path = project / (f"{file}rows.csv" if file.endswith("/") else file.replace("*", "rows"))
        write(path, f"phrase,tone\n{name},joy\n")
        changed.append(path)
    write(project / "params.yaml", compose_conf([f"data.files=[{files}]", f"data.test_files=[{test_files}]"]))
    with Repo(str(project)) as repo:
        repo.index.check_graph()
        repo.commit("prepare", force=True)
        assert repo.status(["prepare"]) == {}
        for path in changed:
            write(path, "phrase,tone\nchanged,joy\n")
            (reasons,) = repo.status(["prepare"]).values()
            ((watched, state),) = reasons[0]["changed deps"].items()
            assert (path.resolve().is_relative_to((project / watched).resolve()), state) == (True, "modified")
            repo.commit("prepare", force=True)
