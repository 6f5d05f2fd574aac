"""`evaluate`: how the candidates are measured."""

from dataclasses import dataclass
from enum import Enum


class Split(Enum):
    """Rows that `train` does not learn from, a file each in data/prepared."""

    test = "test"
    validation = "validation"


class Turns(Enum):
    """Which turns of a conversation are evaluated."""

    last = "last"
    all = "all"


@dataclass
class Evaluate:
    """Settings that every candidate shares, so that their figures can be compared."""

    split: Split
    turns: Turns  # of conversations, each from its true history
    batch_size: int
    confidence_level: float  # of the intervals in the results
    metric: str | None  # package.module.function of (expected, answers), both list[str], that returns a number
