"""Cores that this process may use."""

import os
from pathlib import Path


def cores() -> int:
    """Those it is bound to, or a container's share of them (Linux, cgroup 2)."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = Path("/sys/fs/cgroup/cpu.max")
    quota, _, period = share.read_text().partition(" ") if share.exists() else ("max", "", "")
    return bound if quota == "max" else max(1, min(bound, round(int(quota) / int(period))))
