"""Repairs of onnxruntime-genai's builder (0.18), whose results a test compares with torch's, and of its k_quant."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCKS = 1 << 12  # that k_quant rounds at once: they stay in the cache


@cache
def repair() -> None:
    """Replaces functions of the builder, once."""
    round_in_chunks()
    repair_smollm3()


def round_in_chunks() -> None:
    """Lets k_quant of onnxruntime 1.32 round a few blocks at a time: the same codes, in half the time.

    It needs 12 copies of a whole matrix at once, the head's too: 5 GB for Phi-3-mini.
    """
    from onnxruntime.quantization.neural_compressor import weight_only

    quantize = weight_only.quant_tensor_k_quant_cpu

    def quantize_in_chunks(data: NDArray[Any], num_bits: int = 4, group_size: int = 32) -> tuple[NDArray[Any], ...]:
        blocks = np.reshape(data, (-1, group_size))
        parts = []
        for start in range(0, len(blocks), BLOCKS):
            codes, scales, zero_points = quantize(blocks[start : start + BLOCKS], num_bits, group_size)
            parts.append((codes.astype(np.uint8), scales, zero_points))
        return tuple(map(np.concatenate, zip(*parts, strict=True)))

    weight_only.quant_tensor_k_quant_cpu = quantize_in_chunks


def repair_smollm3() -> None:
    """Writes no rope into the layers that have none."""
    from onnxruntime_genai.models.builder import LlamaModel, SmolLM3Model

    def make_smollm3_attention(self: Any, layer_id: int, attention: Any, root_input: str, **kwargs: Any) -> None:
        """builders/smollm.py writes rope as a node of its own in the layers that have no rope."""
        attributes, window, rope = dict(self.attention_attrs), self.window_size, bool(self.no_rope_layers[layer_id])
        self.attention_attrs |= {"rope": rope, "use_rope_in_attn": rope and attributes["use_rope_in_attn"]}
        if self.layer_types[layer_id] == "full_attention":
            self.window_size = -1
        LlamaModel.make_attention(self, layer_id, attention, root_input, **kwargs)
        self.attention_attrs |= {name: attributes[name] for name in ("rope", "use_rope_in_attn")}
        self.window_size = window

    SmolLM3Model.make_attention = make_smollm3_attention
