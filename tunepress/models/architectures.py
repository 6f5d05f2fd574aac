"""The model architectures that every stage supports. `fetch` rejects others before anything is trained.

A small random model of each architecture was trained, merged, built in float32 and compared with torch
(tests/tunepress/models/test_architectures.py). An architecture that is not in the table is rejected even if the builder lists it:
several of those that it lists (0.18) build without an error and compute something else.
"""

import json
from pathlib import Path
from typing import Any

from tunepress.core.errors import InputError

DEFAULT = ("default",)
SUPPORTED = {  # architectures, each with the types of rope for which the builder's graph computes the same as torch
    "Ernie4_5ForCausalLM": DEFAULT,
    "Gemma2ForCausalLM": DEFAULT,  # trained with eager attention
    "Gemma3ForCausalLM": DEFAULT,
    "GemmaForCausalLM": DEFAULT,
    "GraniteForCausalLM": DEFAULT,
    "GraniteMoeHybridForCausalLM": DEFAULT,
    "HunYuanDenseV1ForCausalLM": ("default", "dynamic"),
    "LlamaForCausalLM": ("default", "llama3"),
    "MistralForCausalLM": ("default", "linear"),
    "Phi3ForCausalLM": ("default", "longrope"),
    "PhiForCausalLM": DEFAULT,
    "Qwen2ForCausalLM": ("default", "linear"),
    "Qwen3ForCausalLM": DEFAULT,
    "SmolLM3ForCausalLM": DEFAULT,
}
NO_CODE = "transformers has no code for it"
UNSUPPORTED = {  # of those that the builder lists, with transformers 5.23 and onnxruntime-genai 0.18
    **dict.fromkeys(("ChatGLMForConditionalGeneration", "ChatGLMModel", "InternLM2ForCausalLM"), NO_CODE),
    **dict.fromkeys(("Phi3SmallForCausalLM", "Phi3VForCausalLM", "Phi4MMForCausalLM", "VideoChatFlashQwenForCausalLM"), NO_CODE),
    **dict.fromkeys(
        (
            "Gemma3ForConditionalGeneration",
            "Gemma4ForConditionalGeneration",
            "Gemma4UnifiedForConditionalGeneration",
            "Lfm2VlForConditionalGeneration",
            "Mistral3ForConditionalGeneration",
            "Qwen2_5_VLForConditionalGeneration",
            "Qwen3VLForConditionalGeneration",
            "Qwen3_5ForConditionalGeneration",
            "Qwen3_5MoeForConditionalGeneration",
        ),
        "it reads images too",
    ),
    **dict.fromkeys(("Lfm2AudioForConditionalGeneration", "WhisperForConditionalGeneration"), "it reads speech"),
    "GptOssForCausalLM": "the builder accepts its experts only in OpenAI's 4 bits, which cannot be trained",
    "Lfm2ForCausalLM": "onnxruntime-genai cannot rewind its state, as evaluate does",
    "Lfm2MoeForCausalLM": "onnxruntime-genai cannot rewind its state, as evaluate does",
    "NemotronForCausalLM": "its attention does not know where an example begins",
    "OlmoForCausalLM": "the builder's graph computes other logits",
    "PhimoeForCausalLM": "its experts have different names in the files and in the model",
}
ROPE_ALIASES = {"su": "longrope"}  # Phi-3's original name


def check(folder: Path) -> None:
    """Checks that every stage supports the model in a folder. Does not read the weights.

    Raises:
        InputError: the architecture is not supported, or the weights are quantized.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    reason = unsupported_reason(config)
    if reason:
        raise InputError(f"{folder}/config.json: {reason}")


def unsupported_reason(config: dict[str, Any]) -> str | None:
    """Why the model of a config.json is not supported, and what to do; None if it is supported."""
    name = (config.get("architectures") or ["a model without architectures"])[0]
    if name not in SUPPORTED:
        reason = f" ({UNSUPPORTED[name]})" if name in UNSUPPORTED else ""
        return f"{name} is not supported{reason}; use a model of {', '.join(SUPPORTED)}"
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown method")
        return f"the weights are already quantized ({method}); use the model in 16 or 32 bits, build quantizes it"
    unsupported = sorted(rope_types(config) - set(SUPPORTED[name]))
    if unsupported:
        known = " and ".join(SUPPORTED[name])
        return f"rope of type {unsupported[0]} is not supported for {name}, only {known}; use a model with that"
    if name == "GraniteMoeHybridForCausalLM" and not attention_only(config):
        return f"{name} is supported only with attention, rope and no experts in every layer; use such a Granite model"
    return None


def rope_types(config: dict[str, Any]) -> set[str]:
    """The types of rope in a config.json of transformers 4 or 5, where each type of layer may have its own type."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    by_layer_type = [settings for settings in rope.values() if isinstance(settings, dict)] or [rope]
    names = [settings.get("rope_type") or settings.get("type") or "default" for settings in by_layer_type]
    return {ROPE_ALIASES.get(name, name) for name in names}


def attention_only(config: dict[str, Any]) -> bool:
    """Whether a Granite hybrid has neither recurrent layers nor experts, and rope in all layers."""
    layer_types = set(config.get("layer_types") or config.get("layers_block_type") or [])
    rope = config.get("position_embedding_type") == "rope"
    return bool(layer_types) and layer_types <= {"attention", "full_attention"} and not config.get("num_local_experts") and rope
