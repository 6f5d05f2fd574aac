"""Sliding windows: which layers of a model see only the last tokens, and whether a built graph agrees."""

import re
from typing import Any

from onnx import ModelProto

from tunepress.core.errors import InputError
from tunepress.inference.genai_config import FILE_NAME, GenaiConfig

SLIDING = "sliding_attention"  # transformers' word in layer_types
IN_EVERY_LAYER = ("mistral", "phi3")  # model types with a window and, in transformers 5.23, without layer_types
ATTENTION = ("GroupQueryAttention", "PagedAttention")  # the operators that can have a window
LAYER = re.compile(r"/model/layers\.(\d+)/")
ALL = -1  # local_window_size of a layer that sees everything


def windows(config: Any) -> list[int]:
    """The number of tokens that each layer of a transformers config sees, including the current one; -1 for all."""
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return [window if window and kind == SLIDING else ALL for kind in layer_types(config)]


def layer_types(config: Any) -> list[str]:
    """The layer types of the config, or those of its architecture if it has none."""
    own = getattr(config, "layer_types", None)
    return own or [SLIDING if config.model_type in IN_EVERY_LAYER else "full_attention"] * config.num_hidden_layers


def declare(config: Any) -> None:
    """Adds layer_types to a config that has none.

    The builder (0.18, builders/base.py, is_local) gives a layer its window only if layer_types says so.
    """
    if any(window != ALL for window in windows(config)):
        config.layer_types = layer_types(config)


def check(model: ModelProto, config: GenaiConfig, expected: list[int]) -> None:
    """Checks that the layers of a built model see the same tokens as those of its source.

    Args:
        model: the graph.
        config: the config of its folder.
        expected: the window of each layer, from `windows`.

    Raises:
        InputError: a layer has another window or an operator without one, or the cache is shorter than the context.
    """
    if "sliding_window" in config.decoder:
        raise InputError(f"{FILE_NAME}: declares a cache as short as the sliding window; build the model again")
    built = dict.fromkeys(range(len(expected)), ALL)
    for node in model.graph.node:
        layer = LAYER.match(node.name)
        if layer and node.op_type in ATTENTION:
            built[int(layer[1])] = next((field.i for field in node.attribute if field.name == "local_window_size"), ALL)
    for number, window in enumerate(expected):
        if built[number] != window:
            problem = f"layer {number} sees {tokens(built[number])}, in the source model {tokens(window)}"
            raise InputError(f"{config.graph.name}: {problem}; the builder cannot build this model for {config.provider}")


def tokens(window: int) -> str:
    """A window in words."""
    return "all tokens" if window == ALL else f"the last {window} tokens"
