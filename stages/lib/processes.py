"""Several processes for one training, started by torchrun, and the threads that each of them gets."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import torch


def launched() -> bool:
    """Whether this process is one of several that torchrun or accelerate has started."""
    return "LOCAL_RANK" in os.environ


def launch(module: str, overrides: list[str], num_processes: int) -> NoReturn:
    """Runs a stage's module once more in each of several processes, and ends with their exit status.

    For several machines torchrun reads its own variables: PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT.
    """
    alone = [] if "PET_NNODES" in os.environ else ["--standalone"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *alone, f"--nproc-per-node={num_processes}", "--module"]
    threads = str(max(1, cores() // num_processes))
    done = subprocess.run([*torchrun, module, *overrides], env={"OMP_NUM_THREADS": threads} | os.environ, check=False)
    sys.exit(done.returncode)


def use_all_cores() -> None:
    """Gives torch as many threads as this process may use cores: by itself it takes all of the machine's."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), cores())))


def cores() -> int:
    """Cores that this process may use: those it is bound to, or a container's share of them (Linux, cgroup 2)."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = Path("/sys/fs/cgroup/cpu.max")
    quota, _, period = share.read_text().partition(" ") if share.exists() else ("max", "", "")
    return bound if quota == "max" else max(1, min(bound, round(int(quota) / int(period))))
