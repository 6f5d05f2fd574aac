"""Figures of a whole run: the metrics of all stages side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunepress.core.files import read_json
from tunepress.core.paths import METRICS

CANDIDATES = ("base", "merged", "onnx")
TIMED = ("merged", "onnx")  # those whose speed is measured
NO_COLUMNS = ("split", "rows", "confidence_level", "per_class")  # figures of a candidate that stand elsewhere than in its row


@dataclass(frozen=True)
class Run:
    """What the stages measured, read from metrics/."""

    prepare: dict[str, Any]
    train: dict[str, Any]
    build: dict[str, Any]
    compare: dict[str, Any]
    gate: dict[str, Any]
    evaluate: dict[str, dict[str, Any]]
    benchmark: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, folder: Path = METRICS) -> "Run":
        """Reads metrics/.

        Raises:
            InputError: a stage has not run.
        """
        stages = {name: read_json(folder / f"{name}.json") for name in ("prepare", "train", "build", "compare", "gate")}
        evaluate = {name: read_json(folder / "evaluate" / f"{name}.json") for name in CANDIDATES}
        benchmark = {name: read_json(folder / "benchmark" / f"{name}.json") for name in TIMED}
        return cls(**stages, evaluate=evaluate, benchmark=benchmark)

    @property
    def rows(self) -> str:
        """Which rows the candidates were asked, and how many."""
        asked = self.evaluate["onnx"]
        return f"{asked['rows']:,} {asked.get('split', 'test')} rows"  # earlier runs had no choice

    @property
    def score(self) -> str:
        """The figure that decides: accuracy where there are labels, else exact_match."""
        return "accuracy" if "accuracy" in self.evaluate["onnx"] else "exact_match"

    @property
    def names(self) -> list[str]:
        """The figures of each candidate in a table."""
        if self.score == "accuracy":
            return ["accuracy", "macro_f1", "invalid_rate"]
        return ["exact_match", "token_f1", "rouge_l", "perplexity"]

    @property
    def all_names(self) -> list[str]:
        """All figures that a candidate has one of, the user's own metric included."""
        bounds = (f"{self.score}_low", f"{self.score}_high")
        rest = [name for name in self.evaluate["onnx"] if name not in (*self.names, *bounds, *NO_COLUMNS)]
        return [*self.names, *rest]

    @property
    def drop(self) -> float:
        """What int4 lost of the score against the merged model; negative where it gained."""
        return round(self.evaluate["merged"][self.score] - self.evaluate["onnx"][self.score], 4)

    def interval(self, name: str) -> tuple[float, float]:
        """The confidence interval of a candidate's score."""
        return self.evaluate[name][f"{self.score}_low"], self.evaluate[name][f"{self.score}_high"]

    def summary(self) -> dict[str, dict[str, float]]:
        """The few figures that `dvc exp show` compares."""
        summary = {name: {key: self.evaluate[name][key] for key in self.names[:2]} for name in CANDIDATES}
        rest = {key: self.evaluate["onnx"][key] for key in self.names[2:]}
        agreement = {key: self.compare[key] for key in ("top1_agreement", "mean_kl")}
        summary["onnx"] |= {**rest, f"{self.score}_drop": self.drop, "size_mb": self.build["size_mb"], **agreement}
        return {**summary, "gate": {"passed": self.gate["passed"]}}

    def speed(self) -> dict[str, dict[str, float]]:
        """Medians of one prompt at a time: tokens a second while answering, and milliseconds to the first token."""
        median = {
            name: {key: value["median"] for key, value in figures["batch_1"].items()} for name, figures in self.benchmark.items()
        }
        speed = {name: {"tokens_per_second": median[name]["decode_tokens_per_second"]} for name in TIMED}
        speed["onnx"]["first_token_ms"] = median["onnx"]["time_to_first_token_ms"]
        return speed
