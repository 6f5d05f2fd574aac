"""The gate: bounds that a model must keep to be shipped, and the figures they are held against."""

from dataclasses import asdict, dataclass
from typing import Any

from tunepress.config.evaluate import Gate


@dataclass(frozen=True)
class Verdict:
    """One bound and what was measured."""

    name: str
    bound: float
    value: float
    passed: bool

    def __str__(self) -> str:
        """A failed bound in words."""
        least = self.name.startswith("min")
        by = float(f"{abs(self.value - self.bound):.4g}")
        return f"evaluate.gate.{self.name}: {self.value:g} is {by:g} {'below' if least else 'over'} the bound of {self.bound:g}"


def verdicts(gate: Gate, evaluate: dict[str, dict[str, Any]], compare: dict[str, Any], rest: dict[str, Any]) -> list[Verdict]:
    """Each bound that is set, against what was measured.

    Args:
        gate: the bounds.
        evaluate: the figures of base, merged and onnx.
        compare: the figures of `compare`.
        rest: size_mb of the onnx model, and latency_ratio, seconds for a token of onnx by those of merged.
    """
    score = "accuracy" if "accuracy" in evaluate["onnx"] else "exact_match"
    measured = {
        "max_drop": evaluate["merged"][score] - evaluate["onnx"][score],
        "min_gain": evaluate["merged"][score] - evaluate["base"][score],
        "max_invalid_rate": evaluate["onnx"].get("invalid_rate", 0.0),
        "min_top1_agreement": compare["top1_agreement"],
        "max_tokenized_differently": compare["tokenized_differently"],
        "max_size_mb": rest["size_mb"],
        "max_latency_ratio": rest["latency_ratio"],
    }
    return [
        Verdict(name, bound, round(measured[name], 4), held(name, round(measured[name], 4), bound))
        for name, bound in asdict(gate).items()
        if bound is not None
    ]


def held(name: str, value: float, bound: float) -> bool:
    """Whether a figure keeps a bound, which its name says to be the least or the most."""
    return value >= bound if name.startswith("min") else value <= bound


def latency_ratio(benchmark: dict[str, dict[str, Any]]) -> float:
    """Seconds for a token of onnx by those of merged, of the figures of metrics/benchmark."""
    speeds = [benchmark[name]["batch_1"]["decode_tokens_per_second"]["median"] for name in ("merged", "onnx")]
    return float(speeds[0] / speeds[1])
