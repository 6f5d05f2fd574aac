"""`environment`: the packages that a run is made with."""

from dataclasses import dataclass


@dataclass
class Environment:
    """One of the project's environments."""

    lock: str  # the exact versions, a file of requirements/ on which every stage depends
