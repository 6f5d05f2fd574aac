"""`evaluate`: how the candidates are measured."""

from dataclasses import dataclass


@dataclass
class Evaluate:
    """Settings that every candidate shares, so that their figures can be compared."""

    batch_size: int
    confidence_level: float
