"""Applying the experiment of a job to the working tree. tests/azure/test_job_runs.py downloads one with its model."""

import sys
from pathlib import Path

import pytest

from tools.azure import fetch
from tools.azure.repository import git, read_bundle
from tunepress.core.errors import InputError

JOB = "smoke-1"
REFERENCE = f"refs/exps/aa/bb/{JOB}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with an experiment of its only commit, and a bundle of the experiment beside it."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.com")
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for metric in ("here", "of the job"):
        (folder / "metrics.json").write_text(metric)
        git(folder, "add", "metrics.json")
        git(folder, "commit", "--quiet", "--message", metric)
    git(folder, "update-ref", REFERENCE, "HEAD")
    git(folder, "reset", "--quiet", "--hard", "HEAD~")
    git(folder, "bundle", "create", "--quiet", str(tmp_path / "bundle"), REFERENCE, "^HEAD")
    monkeypatch.chdir(folder)
    return folder


def test_a_file_that_is_changed_while_the_job_runs_is_not_written_over(project: Path) -> None:
    fetch.refuse_changes()
    (project / "metrics.json").write_text("changed since")
    with pytest.raises(InputError, match=r"^metrics\.json: changed since the last commit"):
        fetch.apply(JOB)
    assert (project / "metrics.json").read_text() == "changed since"


def test_the_experiment_of_a_commit_that_is_not_here_says_what_to_do(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    monkeypatch.chdir(other)
    commit = git(project, "rev-parse", "HEAD")
    with pytest.raises(InputError, match=f"^job {JOB}: the commit that it ran is not in this repository.*{commit}") as refused:
        read_bundle(tmp_path / "bundle", JOB)
    assert "\n" not in str(refused.value)


def test_no_name_of_a_job_is_told_before_azure_is_asked(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fetch", ""])
    with pytest.raises(SystemExit, match=r"^azure-fetch: JOB= must be the name that `make azure-submit` printed"):
        fetch.main()
