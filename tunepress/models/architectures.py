"""Which models go through every stage: what `fetch` refuses before anything is trained.

Each architecture was trained, merged, built in float32 and compared with torch as a small random twin
(tests/tunepress/models/test_architectures.py). What is not in the table is refused, whether or not the builder lists it: of those
it lists (0.18), several build without an error and compute something else.
"""

import json
from pathlib import Path
from typing import Any

from tunepress.core.errors import InputError

DEFAULT = ("default",)
SUPPORTED = {  # architectures, each with the types of rope that the builder's graph computes as torch does
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
}
UNSUPPORTED = {  # with transformers 5.23 and onnxruntime-genai 0.18
    "GptOssForCausalLM": "the builder takes its experts in OpenAI's 4 bits alone, which cannot be trained",
    "Lfm2ForCausalLM": "onnxruntime-genai cannot go back in its state, as evaluate does",
    "Lfm2MoeForCausalLM": "onnxruntime-genai cannot go back in its state, as evaluate does",
    "NemotronForCausalLM": "its attention is not told where an example begins",
    "OlmoForCausalLM": "the builder's graph computes other logits",
    "PhimoeForCausalLM": "its experts have other names in the files than in the model",
    "SmolLM3ForCausalLM": "the builder fails on its layers without rope",
}
ROPE_ALIASES = {"su": "longrope"}  # Phi-3's first name of it


def check(folder: Path) -> None:
    """Looks whether a model folder is of a kind that every stage was tested with; reads no weights.

    Raises:
        InputError: it is not.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    reason = unsupported_reason(config)
    if reason:
        raise InputError(f"{folder}/config.json: {reason}")
    if (folder / "adapter_config.json").exists():
        raise InputError(f"{folder}: has an adapter (adapter_config.json); merge it into the weights and save the whole model")


def unsupported_reason(config: dict[str, Any]) -> str | None:
    """Why a model with this config.json cannot be trained, built and measured, with the cure; None if it can."""
    name = (config.get("architectures") or ["a model without architectures"])[0]
    if name not in SUPPORTED:
        why = f" ({UNSUPPORTED[name]})" if name in UNSUPPORTED else ""
        return f"{name} is not supported{why}; take a model of {', '.join(SUPPORTED)}"
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown method")
        return f"the weights are already quantized ({method}); take the model in 16 or 32 bits, build rounds it"
    unfit = sorted(rope_types(config) - set(SUPPORTED[name]))
    if unfit:
        known = " and ".join(SUPPORTED[name])
        return f"rope of type {unfit[0]} is not supported for {name}, only {known}; take a model with that"
    if name == "GraniteMoeHybridForCausalLM" and not attention_only(config):
        return f"{name} is supported with attention, rope and no experts in every layer; take a Granite model that is so"
    return None


def rope_types(config: dict[str, Any]) -> set[str]:
    """The types of rope in a config.json, of transformers 4 or 5, in which each type of layer may have its own."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    by_layer = [one for one in rope.values() if isinstance(one, dict)] or [rope]
    types = [one.get("rope_type") or one.get("type") or "default" for one in by_layer]
    return {ROPE_ALIASES.get(kind, kind) for kind in types}


def attention_only(config: dict[str, Any]) -> bool:
    """Whether a Granite hybrid has neither recurrent layers nor experts, and rope in all."""
    kinds = config.get("layer_types") or config.get("layers_block_type") or []
    rope = config.get("position_embedding_type") == "rope"
    return bool(kinds) and set(kinds) <= {"attention", "full_attention"} and not config.get("num_local_experts") and rope
