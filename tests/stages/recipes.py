"""Sections of the configuration for tests, whatever the defaults of conf/ become."""

from typing import Any

from stages.lib.schema.build import Build
from stages.lib.schema.evaluate import Evaluate, Gate

NO_GATE = Gate(None, None, None, None, None, None)


def recipe(precision: str = "int4", execution_provider: str = "cpu", **options: Any) -> Build:
    """A build with the builder's own choices but for `options`."""
    builders = {"algo_config": None, "block_size": None, "accuracy_level": None, "is_symmetric": None}
    return Build(
        precision, execution_provider, **({**builders, "matmul_mixed_precision": None, "nodes_to_exclude": []} | options)
    )


def evaluation(**settings: Any) -> Evaluate:
    """An evaluation in small batches without a gate."""
    return Evaluate(**({"batch_size": 4, "confidence_level": 0.95, "metric": None, "gate": NO_GATE} | settings))
