"""Cores that this process may use."""

import os

from stages.lib.cgroups import cpu_share


def cores() -> int:
    """Those it is bound to, or a container's share of them."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cpu_share()
    return bound if share >= bound else max(1, round(share))
