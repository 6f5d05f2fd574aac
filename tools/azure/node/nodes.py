"""Several nodes: what Azure ML's PyTorch distribution says of them, as the train stage's torchrun reads it."""

from collections.abc import Mapping

# Azure ML starts one process on each node and takes it for one of torch's: it has a rank, and torchrun is still to come.
OF_A_PROCESS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = 3600  # seconds that a node waits for the slowest to have fetched and prepared


def first(environment: Mapping[str, str]) -> bool:
    """Whether this node is the one that runs the whole pipeline."""
    return environment.get("RANK", "0") == "0"


def rendezvous(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, with torchrun's variables for several nodes in place of those of a process."""
    found = {name: value for name, value in environment.items() if name not in OF_A_PROCESS}
    nodes = environment.get("WORLD_SIZE", "1")
    if nodes == "1":
        return found
    return found | {
        "PET_NNODES": nodes,
        "PET_NODE_RANK": environment["RANK"],
        "PET_MASTER_ADDR": environment["MASTER_ADDR"],
        "PET_MASTER_PORT": environment["MASTER_PORT"],
        "PET_RDZV_CONF": f"timeout={PATIENCE}",
    }
