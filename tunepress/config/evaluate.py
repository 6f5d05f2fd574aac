"""`evaluate`: how the candidates are measured, and what a model must reach to be shipped."""

from dataclasses import dataclass
from enum import Enum


class Split(Enum):
    """Rows that `train` does not learn from, a file each in data/prepared."""

    test = "test"
    validation = "validation"


@dataclass
class Gate:
    """Bounds; null sets none. The score is accuracy where there are labels, else exact match."""

    max_drop: float | None  # of the score, onnx against merged
    min_gain: float | None  # of the score, merged against base
    max_invalid_rate: float | None  # of onnx
    min_top1_agreement: float | None  # of onnx with merged
    max_tokenized_differently: int | None  # rows that onnx's tokenizer splits into other tokens than training's
    max_size_mb: float | None  # of onnx
    max_latency_ratio: float | None  # seconds for a token, onnx by merged


@dataclass
class Evaluate:
    """Settings that every candidate shares, so that their figures can be compared."""

    split: Split
    batch_size: int
    confidence_level: float
    metric: str | None  # package.module.function of (expected, answers), both list[str], that returns a number
    gate: Gate
    # the path that DVC watches, derived from `metric` in conf/config.yaml
    tracked: str = "???"
