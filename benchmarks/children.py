"""Child processes: each with an environment of its own, its wall time and its own peak memory.

The kernel counts the size of the process that forks as the child's, so the parent must stay small: it imports no torch.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunepress.core import KERNELS
from tunepress.core.errors import InputError

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Usage:
    """What a process took, from its start to its end."""

    seconds: float
    cpu_seconds: float
    peak_memory_mb: int


def environment(home: Path, kernels: bool) -> dict[str, str]:
    """The environment of a child.

    Args:
        home: where Hugging Face's libraries keep their caches, so that none is found full.
        kernels: whether the float kernels are pinned as the stages do it; a peer runs as its user has it, without.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in KERNELS}
    own = {"PYTHONPATH": str(ROOT), "HF_HOME": str(home), "CUDA_VISIBLE_DEVICES": "", "OLIVE_DISABLE_TELEMETRY": "1"}
    return {**inherited, **own, **(KERNELS if kernels else {})}


def run(what: str, folder: Path, variables: Mapping[str, str], *command: str | Path) -> Usage:
    """Runs `command` in `folder` and waits for it.

    Raises:
        InputError: it failed; the last line it printed says why.
    """
    with (folder / "output.log").open("w+b") as log:
        start = time.perf_counter()
        child = subprocess.Popen(command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            log.seek(0)
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
            raise InputError(f"{what}: exit code {child.returncode}: {lines[-1] if lines else 'it printed nothing'}")
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, KiB on Linux
    return Usage(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit // 1_000_000)


def read_json(path: Path) -> dict[str, Any]:
    """What a child reported."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
