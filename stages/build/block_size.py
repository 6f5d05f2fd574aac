"""Whether a recipe fits a model: its architecture, and the widths of its layers in blocks of int4 weights."""

import json
from pathlib import Path
from typing import Any

from tunepress.config.build import Build
from tunepress.config.builder_options import block_sizes
from tunepress.core.errors import InputError
from tunepress.models import architectures

DEFAULT_BLOCK_SIZE = 32  # of the builder


def check_model(build: Build, folder: Path) -> None:
    """Checks whether a recipe fits a model folder, before its weights are read.

    Raises:
        InputError: the architecture is not supported, or the block size does not fit its layers.
    """
    architectures.check(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if build.precision == "int4":
        check_blocks(build, widths(config | config.get("text_config", {})), folder)


def check_blocks(build: Build, products: dict[str, int], folder: Path) -> None:
    """Raises InputError if the weights of a product cannot be cut into blocks that the provider and the quantizer take."""
    size = build.block_size or DEFAULT_BLOCK_SIZE
    for name, width in products.items():
        reason = unfit(build, width, size)
        if reason:
            fitting = [
                str(option) for option in block_sizes() if not any(unfit(build, other, option) for other in products.values())
            ]
            cure = f"set it to {' or '.join(fitting)}" if fitting else "no size fits here"
            raise InputError(f"build.block_size: {size} does not fit {name}, {width} in {folder}: {reason}; {cure}")


def unfit(build: Build, width: int, block_size: int) -> str | None:
    """Why products of this width cannot have int4 weights in blocks of this size; None if they can.

    The quantizer fills a last block up with zeros, and the kernels for CPU, CUDA and WebGPU know that it does.
    """
    if build.execution_provider == "dml" and width % block_size:  # DML_DEQUANTIZE_OPERATOR_DESC needs sizes that divide
        return "dml needs full blocks, so the size must divide the width"
    algorithm = build.algo_config or "default"
    zero_points = algorithm.startswith("k_quant") or (algorithm.startswith("rtn") and build.is_symmetric is False)
    if zero_points and -(-width // block_size) % 2:  # they are packed in pairs, and not row by row (weight_only.py)
        return f"{algorithm} needs an even number of blocks (default takes any)"
    return None


def widths(config: dict[str, Any]) -> dict[str, int]:
    """How many weights each output of a product has, by the names that the model's configuration gives them."""
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    head_dim = config.get("head_dim") or (hidden // heads if hidden and heads else None)
    named = {
        "hidden_size": hidden,
        "intermediate_size": config.get("intermediate_size"),
        "num_attention_heads x head_dim": heads * head_dim if heads and head_dim else None,
    }
    return {name: width for name, width in named.items() if width}
