"""cpu: how many cores this process may use, and how many of them other processes leave free."""

import os
import subprocess
import sys

import pytest

from tunepress.core import cpu
from tunepress.core.cpu import FreeCores, free_cores, other_cpu_seconds


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


class Clock:
    """A clock and the CPU time of other processes, both set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.others = 0.0
        monkeypatch.setattr(cpu.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(cpu, "other_cpu_seconds", lambda: self.others)
        monkeypatch.setattr(cpu, "affinity", lambda: 16)

    def passes(self, seconds: float, busy: float) -> None:
        self.now += seconds
        self.others += seconds * busy


@pytest.mark.parametrize(("busy", "free"), [(0.0, 16), (0.4, 16), (1.0, 15), (3.2, 13), (15.9, 1), (16.0, 1), (40.0, 1)])
def test_a_thread_for_each_core_that_other_processes_leave_free(busy: float, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    look = FreeCores(16)
    clock.passes(2.0, busy)
    assert look() == free
    clock.passes(0.1, 16.0)  # too short to say
    assert look() == free
    clock.passes(100.0, 0.0)
    assert look() == 16


def test_all_of_a_few_cores_are_used_while_the_machine_has_free_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    look = FreeCores(4)
    clock.passes(1.0, 8.0)
    assert look() == 4


def test_the_time_of_other_processes_is_counted_and_this_one_s_is_not() -> None:
    before = other_cpu_seconds()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 1: pass"], check=True)
    assert other_cpu_seconds() - before > 0.9


def test_the_number_of_threads_that_the_user_has_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    clock = Clock(monkeypatch)
    look = FreeCores(3)
    clock.passes(2.0, 16.0)
    assert look() == 3


def test_a_short_look_finds_at_least_one_core_and_no_more_than_there_are() -> None:
    assert 1 <= free_cores() <= cpu.available_cores() <= (os.cpu_count() or 1)
