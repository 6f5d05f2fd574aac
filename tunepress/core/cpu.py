"""CPU cores: how many this process may use, and how many of them other processes leave free."""

import os
import time
from pathlib import Path

from tunepress.core.cgroups import cpu_share

INTERVAL = 0.25  # minimum seconds between two measurements: the kernel counts in hundredths


def available_cores() -> int:
    """The cores that this process may use: those of its CPU affinity, or fewer if its container has a CPU limit."""
    share = cpu_share()
    return affinity() if share >= affinity() else max(1, round(share))


def affinity() -> int:
    """The number of cores to which this process is bound."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class FreeCores:
    """Counts the cores that other processes leave free.

    Threads wait for each other by spinning, in OpenMP and in onnxruntime, so more threads than free cores cost more than they
    gain: a training step takes two to ten times as long next to one busy process (`python -m benchmarks.busy`).

    Args:
        maximum: the largest number to return. If OMP_NUM_THREADS is set, it is always returned.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = self._free = maximum
        self._measured_at, self._other_seconds = time.monotonic(), other_cpu_seconds()

    def __call__(self) -> int:
        """The free cores since the last measurement, at least 1."""
        now = time.monotonic()
        if "OMP_NUM_THREADS" not in os.environ and now - self._measured_at >= INTERVAL:
            other_seconds = other_cpu_seconds()
            busy = (other_seconds - self._other_seconds) / (now - self._measured_at)
            self._free = max(1, min(self._maximum, round(affinity() - busy)))
            self._measured_at, self._other_seconds = now, other_seconds
        return self._free


def free_cores() -> int:
    """The cores of this process that are free now, measured during INTERVAL."""
    free = FreeCores(available_cores())
    time.sleep(INTERVAL)
    return free()


def other_cpu_seconds() -> float:
    """CPU time that other processes have used on the cores to which this process is bound.

    It is 0 where the kernel does not report it (Linux does, proc_stat(5)). Niced processes yield the CPU by themselves, so they
    count only if this process is niced too.
    """
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    own_cores, is_niced = {f"cpu{core}" for core in os.sched_getaffinity(0)}, os.nice(0) > 0
    ticks = 0
    for line in stat.read_text(encoding="utf-8").splitlines():
        name, *columns = line.split()
        if name in own_cores:
            user, nice, system = map(int, columns[:3])
            ticks += user + system + (nice if is_niced else 0)
    own = os.times()
    return ticks / os.sysconf("SC_CLK_TCK") - own.user - own.system
