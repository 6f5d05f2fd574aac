"""Figures of a whole run: the metrics of all stages side by side."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.edge.errors import InputError
from stages.lib.edge.paths import METRICS

CANDIDATES = ("base", "merged", "onnx")


@dataclass(frozen=True)
class Run:
    """What the stages measured, read from metrics/."""

    prepare: dict[str, Any]
    train: dict[str, Any]
    build: dict[str, Any]
    evaluate: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, folder: Path = METRICS) -> "Run":
        """Reads metrics/.

        Raises:
            InputError: a stage has not run.
        """
        stages = {name: _read(folder / f"{name}.json") for name in ("prepare", "train", "build")}
        return cls(**stages, evaluate={name: _read(folder / "evaluate" / f"{name}.json") for name in CANDIDATES})

    @property
    def score(self) -> str:
        """The figure that decides: accuracy where there are labels, else exact_match."""
        return "accuracy" if "accuracy" in self.evaluate["onnx"] else "exact_match"

    @property
    def names(self) -> list[str]:
        """The figures of each candidate in a table."""
        return ["accuracy", "macro_f1", "invalid_rate"] if self.score == "accuracy" else ["exact_match", "rouge_l"]

    @property
    def drop(self) -> float:
        """What int4 lost of the score against the merged model; negative where it gained."""
        return round(self.evaluate["merged"][self.score] - self.evaluate["onnx"][self.score], 4)

    def summary(self) -> dict[str, dict[str, float]]:
        """The few figures that `dvc exp show` compares."""
        summary = {name: {key: self.evaluate[name][key] for key in self.names[:2]} for name in CANDIDATES}
        rest = {key: self.evaluate["onnx"][key] for key in self.names[2:]}
        summary["onnx"] |= {**rest, f"{self.score}_drop": self.drop, "size_mb": self.build["size_mb"]}
        return summary


def _read(path: Path) -> Any:
    if not path.exists():
        raise InputError(f"{path}: not found; run `make repro`")
    return json.loads(path.read_text(encoding="utf-8"))
