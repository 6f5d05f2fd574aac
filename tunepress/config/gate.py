"""`gate`: what a model must reach to be shipped."""

from dataclasses import dataclass


@dataclass
class Gate:
    """Bounds; null sets none. The score is accuracy where there are labels, otherwise exact match."""

    max_drop: float | None  # of the score, onnx against merged
    min_gain: float | None  # of the score, merged against base
    min_gain_over: dict[str, float] | None  # of the score, onnx against baselines by their names
    max_invalid_rate: float | None  # of onnx: answers without a label, or that do not match the schema
    max_calibration_error: float | None  # of onnx, after the temperature
    max_flipped_share: float | None  # of rows whose most likely label is another for onnx than for merged
    max_forgetting: float | None  # onnx against base: accuracy on questions, or nats per token of a text; the largest
    min_top1_agreement: float | None  # of onnx with merged
    max_tokenized_differently: int | None  # rows that onnx's tokenizer splits into other tokens than training's
    max_size_mb: float | None  # of onnx
    max_latency_ratio: float | None  # seconds for a token, onnx by merged
