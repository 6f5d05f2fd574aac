"""Configurations for tests, whatever the defaults of conf/ become."""

from typing import Any

from benchmarks.models import recipe
from tunepress.config.evaluate import Evaluate, Split, Turns
from tunepress.config.gate import Gate
from tunepress.config.merge import Merge, MergeBase

__all__ = ["MERGE", "NO_GATE", "evaluation", "recipe"]

NO_GATE = Gate(None, None, None, None, None, None, None)
MERGE = Merge(MergeBase.original)


def evaluation(**settings: Any) -> Evaluate:
    """An evaluation in small batches."""
    small: dict[str, Any] = {"split": Split.test, "turns": Turns.last, "batch_size": 4, "confidence_level": 0.95, "metric": None}
    return Evaluate(**(small | settings))
