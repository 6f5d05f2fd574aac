"""When and on what something was measured."""

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.peer_environment import pins

BUSY = 0.7  # load of the last minute at which another process must be running


def circumstances(packages: tuple[str, ...], peer: str | None = None) -> dict[str, Any]:
    """Date, machine, and versions of this environment's packages and of a peer's that has one of its own."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        **({f"{peer}_packages": pins(peer)} if peer else {}),
    }


def cpu_name() -> str:
    """As the kernel calls it on Linux, as Python does elsewhere."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def load_at_start(console: Console) -> float:
    """The machine's load of the last minute; says so where that is too much to measure anything."""
    load = os.getloadavg()[0]
    if load > BUSY:
        console.print(f"The machine is busy (load {load:.1f}): what follows is no measurement of a quiet one.")
    return load
