"""Starts several processes for one training through torchrun, and sets the number of threads of each."""

import os
import sys
from typing import NoReturn

import torch
from accelerate import DistributedType, PartialState
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun_main

from tunepress.core.cpu import available_cores


def launched() -> bool:
    """Whether torchrun or accelerate has started this process."""
    return "LOCAL_RANK" in os.environ


def to_launch(num_processes: int) -> bool:
    """Whether this process must start others: several on this machine, or one on each of several machines."""
    return not launched() and (num_processes > 1 or os.environ.get("PET_NNODES", "1") != "1")


def first() -> bool:
    """Whether this is the process that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


def launch(module: str, overrides: list[str], num_processes: int) -> NoReturn:
    """Replaces this process with torchrun, which runs a stage's module again in each of several processes.

    For several machines torchrun reads its own variables: PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT.
    """
    standalone = [] if "PET_NNODES" in os.environ else ["--standalone"]
    torchrun = [sys.executable, "-m", __name__, *standalone, f"--nproc-per-node={num_processes}", "--module"]
    threads = str(max(1, available_cores() // num_processes))
    sys.stdout.flush()
    os.execve(sys.executable, [*torchrun, module, *overrides], {"OMP_NUM_THREADS": threads} | os.environ)  # noqa: S606


def let_fsdp_run_on_cpus() -> None:
    """Makes accelerate treat CPU processes as GPU processes: it supports FSDP only there, and would silently train without it."""
    state = PartialState()
    if state.distributed_type is DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU  # accelerate turns this into FSDP


def use_all_cores() -> None:
    """Limits torch's threads to the cores that this process may use: by default it uses all cores of the machine."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), available_cores())))


if __name__ == "__main__":
    try:
        torchrun_main(sys.argv[1:])
    except ChildFailedError:  # the process has printed its error; torchrun would add a page of its own
        sys.exit(1)
