"""Versions: packages against the lock, and git in each state that DVC minds."""

import subprocess
from pathlib import Path

import pytest

from tools.doctor.finding import State
from tools.doctor.versions import composed, dvc, git, packages
from tunepress.core import environment


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, in no repository."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_git(*arguments: str) -> None:
    author = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    subprocess.run(["git", *author, *arguments], check=True, capture_output=True)


def test_the_packages_of_the_lock_are_ok() -> None:
    assert packages("requirements/cpu.txt").state is State.ok


def test_a_wrong_version_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = (environment.ROOT / "requirements/cpu.txt").read_text(encoding="utf-8")
    assert "\npeft==0.21.2\n" in lock
    (tmp_path / "lock.txt").write_text(lock.replace("peft==0.21.2", "peft==0.1.0"), encoding="utf-8")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    finding = packages("lock.txt")
    assert (finding.state, finding.detail) == (State.error, "lock.txt: says peft 0.1.0, but 0.21.2 is installed")
    assert "make setup" in finding.advice


def test_another_environment_than_the_installed_is_an_error() -> None:
    assert packages("requirements/cuda13.txt").state is State.error


def test_no_repository_no_commit_and_a_changed_file_are_told_apart(folder: Path) -> None:
    assert (git().state, git().detail) == (State.error, "no repository")
    run_git("init", "--quiet")
    assert (git().state, git().detail) == (State.error, "a repository without a commit")
    run_git("commit", "--quiet", "--allow-empty", "--message", "empty")
    assert git().state is State.ok
    assert git().detail.endswith("changed files: 0")
    (folder / "new").touch()
    assert git().state is State.ok
    assert git().detail.endswith("changed files: 1")


def test_without_git_it_still_looks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    assert (git().state, git().detail) == (State.warning, "not installed")


def test_a_folder_that_is_no_dvc_project_is_an_error(folder: Path) -> None:
    assert dvc().state is State.error
    (folder / ".dvc").mkdir()
    assert dvc().state is State.ok


def test_an_edit_of_conf_that_was_not_composed_is_a_warning(folder: Path, root: Path) -> None:
    (folder / "conf").symlink_to(root / "conf")
    (folder / "params.yaml").write_bytes((root / "conf/composed.yaml").read_bytes())
    assert (composed().state, composed().detail) == (State.ok, "composed from conf/")
    (folder / "params.yaml").write_text("seed: 1\n", encoding="utf-8")
    assert (composed().state, composed().detail) == (State.ok, "your choice, different from conf/")
    (folder / "params.yaml").unlink()
    assert composed().state is State.warning
