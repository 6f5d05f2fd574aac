"""Configurations for tests, whatever the defaults of conf/ become."""

from dataclasses import fields
from typing import Any

from benchmarks.models import recipe
from tunepress.config.evaluate import Baseline, Evaluate, Split, Turns
from tunepress.config.gate import Gate
from tunepress.config.merge import Merge, MergeBase

__all__ = ["MERGE", "NO_GATE", "evaluation", "recipe"]

NO_GATE = Gate(**dict.fromkeys(field.name for field in fields(Gate)))
MERGE = Merge(MergeBase.original)


def evaluation(**settings: Any) -> Evaluate:
    """An evaluation in small batches."""
    small: dict[str, Any] = {"split": Split.test, "turns": Turns.last, "batch_size": 4, "confidence_level": 0.95, "metric": None}
    rest = {
        "baselines": list(Baseline),
        "n_shot": 2,
        "guidance": None,
        "calibration": None,
        "abstain_below": None,
        "retained": None,
        "tasks": [],
        "conformance_rows": False,
    }
    return Evaluate(**(small | rest | settings))
