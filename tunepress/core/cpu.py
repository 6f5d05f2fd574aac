"""Cores that this process may use, and those of them that other processes leave free."""

import os
import time
from pathlib import Path

from tunepress.core.cgroups import cpu_share

INTERVAL = 0.25  # between two looks at the cores: the kernel counts in hundredths


def available_cores() -> int:
    """Those it is bound to, or a container's share of them."""
    share = cpu_share()
    return affinity() if share >= affinity() else max(1, round(share))


def affinity() -> int:
    """The number of cores that it is bound to."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class FreeCores:
    """How many cores other processes leave free.

    Threads wait for each other by spinning, in OpenMP and in onnxruntime, so a thread more than there are free cores costs more
    than it gives: a step of training takes two to ten times as long next to one busy process (`python -m benchmarks.busy`).
    """

    def __init__(self, most: int) -> None:
        """Begins to look; there are never more than `most`. Where the user has set OMP_NUM_THREADS, there are always as many."""
        self.most = self.free = most
        self.when, self.others = time.monotonic(), other_cpu_seconds()

    def __call__(self) -> int:
        """The number since the last look, at least 1."""
        now = time.monotonic()
        if "OMP_NUM_THREADS" not in os.environ and now - self.when >= INTERVAL:
            others = other_cpu_seconds()
            busy = (others - self.others) / (now - self.when)
            self.free = max(1, min(self.most, round(affinity() - busy)))
            self.when, self.others = now, others
        return self.free


def free_cores() -> int:
    """How many of this process's cores are free now, after a short look."""
    look = FreeCores(available_cores())
    time.sleep(INTERVAL)
    return look()


def other_cpu_seconds() -> float:
    """CPU time that processes other than this one have used of the cores that it is bound to.

    It is 0 where the kernel does not tell (Linux does, proc_stat(5)). Niced processes give way by themselves, so they count only
    for a process that is niced too.
    """
    listing = Path("/proc/stat")
    if not listing.exists():
        return 0.0
    own, niced = {f"cpu{core}" for core in os.sched_getaffinity(0)}, os.nice(0) > 0
    ticks = 0
    for line in listing.read_text(encoding="utf-8").splitlines():
        name, *columns = line.split()
        if name in own:
            user, nice, system = map(int, columns[:3])
            ticks += user + system + (nice if niced else 0)
    used = os.times()
    return ticks / os.sysconf("SC_CLK_TCK") - used.user - used.system
