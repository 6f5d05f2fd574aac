"""Repairs of onnxruntime-genai's builder (0.18), whose results a test compares with torch's."""

from typing import Any


def repair() -> None:
    """Replaces methods of the builder. Calling it again changes nothing."""
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
