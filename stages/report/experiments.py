"""Experiments: other runs that DVC knows."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Experiment:
    """One run that ended.

    Attributes:
        name: of the experiment, or the branch or commit that holds its metrics.
        size_mb: of the ONNX model's folder.
        score: accuracy or exact match of the ONNX model.
        workspace: whether it is the working tree's.
    """

    name: str
    size_mb: float
    score: float
    workspace: bool


def experiments_of(table: Iterable[dict[str, Any]], score: str) -> list[Experiment]:
    """The runs of `dvc.api.exp_show()` that have both metrics; a commit only if no run before it has the same two.

    Commits from before metrics/summary.json was flat have them as `onnx.size_mb` and `onnx.accuracy`.

    Args:
        table: the columns of each row; the file's name is part of a metric's column if two files have the metric.
        score: accuracy or exact_match.
    """
    experiments: list[Experiment] = []
    for row in table:
        size, value = ((cell(row, name) or cell(row, f"onnx.{name}")) for name in ("size_mb", score))
        if size is None or value is None:
            continue
        name = row["Experiment"] or row["rev"]
        seen = {(experiment.size_mb, experiment.score) for experiment in experiments}
        if row["Experiment"] or (size, value) not in seen:
            experiments.append(Experiment(name, size, value, workspace=row["rev"] == "workspace"))
    return experiments


def cell(row: dict[str, Any], name: str) -> float | None:
    """A metric of metrics/summary.json; None if the run has none, which DVC shows as a word or as `!`."""
    value = row.get(name, row.get(f"metrics/summary.json:{name}"))
    return value if isinstance(value, float) and math.isfinite(value) else None
