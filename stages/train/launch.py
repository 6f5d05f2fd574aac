"""Several processes for one training, started by torchrun, and the threads that each of them gets."""

import os
import sys
from typing import NoReturn

import torch
from accelerate import DistributedType, PartialState
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun_main

from tunepress.core.cpu import available_cores


def launched() -> bool:
    """Whether this process is one of several that torchrun or accelerate has started."""
    return "LOCAL_RANK" in os.environ


def to_launch(num_processes: int) -> bool:
    """Whether this process is to start others: several on this machine, or one on each of several machines."""
    return not launched() and (num_processes > 1 or os.environ.get("PET_NNODES", "1") != "1")


def first() -> bool:
    """Whether this process is the one of several that speaks and writes."""
    return os.environ.get("RANK", "0") == "0"


def launch(module: str, overrides: list[str], num_processes: int) -> NoReturn:
    """Becomes torchrun, which runs a stage's module once more in each of several processes.

    For several machines torchrun reads its own variables: PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT.
    """
    alone = [] if "PET_NNODES" in os.environ else ["--standalone"]
    torchrun = [sys.executable, "-m", __name__, *alone, f"--nproc-per-node={num_processes}", "--module"]
    threads = str(max(1, available_cores() // num_processes))
    sys.stdout.flush()
    os.execve(sys.executable, [*torchrun, module, *overrides], {"OMP_NUM_THREADS": threads} | os.environ)  # noqa: S606


def let_fsdp_run_on_cpus() -> None:
    """Takes processes on CPUs for GPUs where accelerate asks: it knows FSDP only there, and would train without, unsaid."""
    state = PartialState()
    if state.distributed_type is DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU  # accelerate makes FSDP of it


def use_all_cores() -> None:
    """Gives torch as many threads as this process may use cores: by itself it takes all of the machine's."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), available_cores())))


if __name__ == "__main__":
    try:
        torchrun_main(sys.argv[1:])
    except ChildFailedError:  # the process has said what is wrong; torchrun would follow with a page of its own
        sys.exit(1)
