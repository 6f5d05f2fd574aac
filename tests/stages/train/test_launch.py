"""Starting several processes, and how many threads each of them gets."""

import os
import sys
from typing import Any

import pytest

from stages.train import launch
from tunepress.core import cpu as machine


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The commands and the environments that `launch` becomes."""
    commands: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda path, command, environment: commands.append((command, environment)))
    for name in ("PET_NNODES", "LOCAL_RANK", "RANK", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return commands


def container(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, and a container's share of them, which tests/tunepress/core/test_cgroups.py reads from files."""
    monkeypatch.setattr(machine, "cpu_share", lambda: share)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(("share", "count"), [(float("inf"), 8), (2.0, 2), (0.5, 1), (2.5, 2), (16.0, 8)])
def test_a_container_gets_its_share_of_the_cores(share: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    container(share, monkeypatch)
    assert machine.available_cores() == count


def test_without_a_container_the_cores_are_those_the_process_is_bound_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_share", lambda: float("inf"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert machine.available_cores() == 3


def test_processes_share_the_cores(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    container(4.0, monkeypatch)
    launch.launch("stages.train", ["train.max_steps=1"], 2)
    ((command, environment),) = started
    assert command[0] == sys.executable
    assert command[-3:] == ["--module", "stages.train", "train.max_steps=1"]
    assert "--nproc-per-node=2" in command
    assert "--standalone" in command
    assert environment["OMP_NUM_THREADS"] == "2"


def test_a_number_of_threads_that_the_user_has_set_stays(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    launch.launch("stages.train", [], 64)
    assert started[0][1]["OMP_NUM_THREADS"] == "3"


def test_several_machines_meet_where_torchruns_variables_say(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert not launch.to_launch(1)
    assert launch.to_launch(2)
    monkeypatch.setenv("PET_NNODES", "2")
    assert launch.to_launch(1)
    launch.launch("stages.train", [], 1)
    assert "--standalone" not in started[0][0]


def test_a_process_that_torchrun_has_started_starts_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("PET_NNODES", "2")
    assert not launch.to_launch(2)
    assert not launch.first()
