"""Sections of the configuration for tests, whatever the defaults of conf/ become."""

from typing import Any

from stages.lib.schema.build import Adapters, Build
from stages.lib.schema.evaluate import Evaluate, Gate
from stages.lib.schema.merge import Merge, MergeBase

NO_GATE = Gate(None, None, None, None, None, None)
MERGE = Merge(MergeBase.original)


def recipe(precision: str = "int4", execution_provider: str = "cpu", **options: Any) -> Build:
    """A build with the builder's own choices but for `options`."""
    left = ("algo_config", "block_size", "accuracy_level", "is_symmetric", "matmul_mixed_precision")
    choices: dict[str, Any] = (
        dict.fromkeys(left)
        | {
            "nodes_to_exclude": [],
            "adapters": Adapters.merged,
            "n_samples": None,
            "extra_options": {},
            "tracked": "stages/build.py",
        }
        | options
    )
    return Build(precision, execution_provider, **choices)


def evaluation(**settings: Any) -> Evaluate:
    """An evaluation in small batches without a gate."""
    return Evaluate(**({"batch_size": 4, "confidence_level": 0.95, "metric": None, "gate": NO_GATE} | settings))
