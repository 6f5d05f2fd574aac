"""The metrics of a whole run: those of all stages together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunepress.core.files import read_json
from tunepress.core.paths import METRICS
from tunepress.inference.metrics import wilson_interval
from tunepress.text.labels import score_name

CANDIDATES = ("base", "merged", "onnx")
TIMED = ("merged", "onnx")  # those whose speed is measured
PROBABILITIES = ("calibration_error", "brier", "nll")  # metrics of the probabilities of labels
NO_COLUMNS = (  # metrics of a candidate that are not in its row of the scores
    *("split", "rows", "confidence_level", "per_class", "datasets", "temperature", "calibrated", "accuracy_at_coverage"),
    *("coverage", "selective_accuracy", "retained", "fields", "unguided", *PROBABILITIES),
)


@dataclass(frozen=True)
class Run:
    """What the stages measured, read from metrics/."""

    prepare: dict[str, Any]
    train: dict[str, Any]
    build: dict[str, Any]
    compare: dict[str, Any]
    evaluate: dict[str, dict[str, Any]]
    benchmark: dict[str, dict[str, Any]]
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    baseline_speeds: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path = METRICS) -> "Run":
        """Reads metrics/.

        Raises:
            InputError: a stage has not run.
        """
        stages = {name: read_json(folder / f"{name}.json") for name in ("prepare", "train", "build", "compare")}
        evaluate = {name: read_json(folder / "evaluate" / f"{name}.json") for name in CANDIDATES}
        benchmark = {name: read_json(folder / "benchmark" / f"{name}.json") for name in TIMED}
        baselines, speeds = (read_json(folder / name) for name in ("baselines.json", "benchmark/baselines.json"))
        return cls(**stages, evaluate=evaluate, benchmark=benchmark, baselines=baselines, baseline_speeds=speeds)

    @property
    def rows(self) -> str:
        """The number of rows on which the candidates were measured, and their split."""
        onnx = self.evaluate["onnx"]
        return f"{onnx['rows']:,} {onnx.get('split', 'test')} rows"  # earlier runs had no choice

    @property
    def score(self) -> str:
        """The metric that decides."""
        return score_name(self.evaluate["onnx"])

    @property
    def names(self) -> list[str]:
        """The metrics in a table of the candidates."""
        if self.score == "accuracy":
            return ["accuracy", "macro_f1", "invalid_rate"]
        if self.has_schema:
            return ["exact_match", "schema_valid_rate", "field_accuracy", "perplexity"]
        calls = ["tool_call_accuracy"] if "tool_call_accuracy" in self.evaluate["onnx"] else []
        return ["exact_match", *calls, "token_f1", "rouge_l", "perplexity"]

    @property
    def has_schema(self) -> bool:
        """Whether the answers are JSON with a schema."""
        return "schema_valid_rate" in self.evaluate["onnx"]

    @property
    def invalid_rate(self) -> float:
        """The share of onnx's answers that are not a label, or do not match the schema; 0 for free text."""
        onnx = self.evaluate["onnx"]
        return 1 - float(onnx["schema_valid_rate"]) if self.has_schema else float(onnx.get("invalid_rate", 0.0))

    @property
    def all_names(self) -> list[str]:
        """All metrics that are a single number, the user's own included."""
        bounds = (f"{self.score}_low", f"{self.score}_high")
        rest = [name for name in self.evaluate["onnx"] if name not in (*self.names, *bounds, *NO_COLUMNS)]
        return [*self.names, *rest]

    @property
    def best_baseline(self) -> str | None:
        """The name of the cheaper method with the highest score."""
        return max(self.baselines, key=self.score_of, default=None)

    def score_of(self, name: str) -> float:
        """The score of a candidate or a baseline: of its answers, or for base, where there are labels, of its most likely label.

        Base has not learned to answer with a label and nothing else, so its answers would score 0 whatever it knows.
        """
        metrics = self.evaluate.get(name) or self.baselines[name]
        return float(metrics["likelihood_accuracy" if self.by_likelihood(name) else self.score])

    def by_likelihood(self, name: str) -> bool:
        """Whether a candidate's score is that of its most likely label."""
        return name == "base" and "likelihood_accuracy" in self.evaluate[name]

    def calibrated(self, name: str) -> dict[str, float]:
        """The metrics of PROBABILITIES of a candidate with labels, after its temperature if it has one."""
        metrics = self.evaluate[name]
        return metrics.get("calibrated") or {key: metrics[key] for key in PROBABILITIES}

    @property
    def retained(self) -> dict[str, list[float]]:
        """The metric of each file of evaluate.retained for all candidates: accuracy on questions, perplexity of a text."""
        files = self.evaluate["onnx"].get("retained", {})
        return {
            f"{file}, {metric}": [self.evaluate[name]["retained"][file][metric] for name in CANDIDATES]
            for file, metrics in files.items()
            for metric in ("accuracy", "perplexity")
            if metric in metrics
        }

    @property
    def forgetting(self) -> float | None:
        """The largest loss of onnx against base on evaluate.retained: accuracy on questions, nats per token of a text."""
        losses = [
            math.log(onnx / base) if name.endswith("perplexity") else base - onnx
            for name, (base, _, onnx) in self.retained.items()
        ]
        return max(losses, default=None)

    def interval(self, name: str) -> tuple[float, float]:
        """The confidence interval of a candidate's or a baseline's score."""
        metrics = self.evaluate.get(name) or self.baselines[name]
        if self.by_likelihood(name):
            rows = metrics["rows"]
            metrics = wilson_interval(round(self.score_of(name) * rows), rows, metrics["confidence_level"], self.score)
        return metrics[f"{self.score}_low"], metrics[f"{self.score}_high"]

    @property
    def drop(self) -> float:
        """The score that int4 lost against the merged model; negative where it gained."""
        return round(self.score_of("merged") - self.score_of("onnx"), 4)

    def tokens_per_second(self, name: str) -> float:
        """The median while answering one prompt at a time."""
        return float(self.benchmark[name]["batch_1"]["decode_tokens_per_second"]["median"])

    def summary(self, broken: Sequence[str]) -> dict[str, float | str]:
        """The metrics of metrics/summary.json, few and with short names, so that `dvc exp show` fits a terminal.

        Args:
            broken: the bounds of the gate that are broken.
        """
        onnx = self.evaluate["onnx"]
        return {
            self.score: onnx[self.score],
            **{name: onnx[name] for name in self._second_score},
            "drop": self.drop,
            "base": self.score_of("base"),
            **({"baseline": self.score_of(self.best_baseline)} if self.best_baseline else {}),
            "kl": self.compare["mean_kl"],
            "size_mb": self.build["size_mb"],
            "gate": ", ".join(broken) or "passed",
        }

    @property
    def _second_score(self) -> tuple[str, ...]:
        """The metric that shows how near an answer is that is not equal; none where the answers are labels."""
        return () if self.score == "accuracy" else ("field_accuracy",) if self.has_schema else ("token_f1",)

    def speed(self) -> dict[str, float]:
        """The metric of metrics/speed.json, of the ONNX model: it differs from machine to machine and from run to run."""
        return {"tokens_s": self.tokens_per_second("onnx")}
