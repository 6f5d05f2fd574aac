"""The verdict: each bound of `gate` against what was measured."""

from dataclasses import asdict, dataclass

from stages.report.figures import Run
from tunepress.config.gate import Gate


@dataclass(frozen=True)
class Verdict:
    """One bound and what was measured."""

    name: str
    bound: float
    value: float

    @property
    def passed(self) -> bool:
        """Whether the value keeps the bound; the bound's name says whether it is the least or the most."""
        return self.value >= self.bound if self.name.startswith("min") else self.value <= self.bound

    def __str__(self) -> str:
        """A broken bound as metrics/summary.json has it and the stage `gate` reads it."""
        return f"{self.name} {self.value:g} {'<' if self.name.startswith('min') else '>'} {self.bound:g}"


def verdicts(gate: Gate, run: Run) -> list[Verdict]:
    """A verdict for each bound that is set, except over baselines that do not apply to the rows."""
    measured = {
        "max_drop": run.drop,
        "min_gain": run.score_of("merged") - run.score_of("base"),
        "max_invalid_rate": run.invalid_rate,
        "max_calibration_error": run.calibrated("onnx")["calibration_error"] if "nll" in run.evaluate["onnx"] else 0.0,
        "max_flipped_share": run.compare.get("flipped_share", 0.0),
        "max_forgetting": run.forgetting or 0.0,
        "min_top1_agreement": run.compare["top1_agreement"],
        "max_tokenized_differently": run.compare["tokenized_differently"],
        "max_size_mb": run.build["size_mb"],
        "max_latency_ratio": run.tokens_per_second("merged") / run.tokens_per_second("onnx"),
    }
    for name in run.baselines:
        measured[f"min_gain_over.{name}"] = run.score_of("onnx") - run.score_of(name)
    bounds = asdict(gate)
    bounds |= {f"min_gain_over.{name}": bound for name, bound in (bounds.pop("min_gain_over") or {}).items()}
    return [
        Verdict(name, bound, round(measured[name], 4)) for name, bound in bounds.items() if bound is not None and name in measured
    ]
