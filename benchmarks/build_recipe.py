"""A recipe of the stage build for benchmarks and tests, whatever the defaults of conf/ become."""

from typing import Any

from tunepress.config.build import Adapters, Build


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
        }
        | options
    )
    return Build(precision, execution_provider, **choices)
