"""pipeline: the stages and their commands are those that DVC knows."""

from pathlib import Path

import pytest
from dvc.repo import Repo

from tunepress.core.pipeline import commands
from tunepress.remote.collected import LISTS


def test_the_commands_are_those_that_dvc_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with Repo(str(root)) as repo:
        assert commands([]) == {stage.addressing: stage.cmd for stage in repo.index.stages}


def test_rows_from_elsewhere_have_stages_of_their_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    brought = commands(LISTS).items() - commands([]).items()
    assert dict(brought) == {
        f"{stage}@{name}": f"python -m stages.{stage} {name}" for stage in ("identify", "collect") for name in LISTS
    }
