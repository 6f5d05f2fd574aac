"""A LoRA adapter as two factors for each layer, which a model can be given at run time instead of merged weights."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key

from tunepress.core.errors import InputError
from tunepress.models.bnb_4bit import Quantization
from tunepress.models.peft_adapter import PeftAdapter

TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
LAYER = re.compile(r"(?:.+\.)?layers\.(?P<number>\d+)\.(?P<block>self_attn|mlp|shared_mlp)\.(?P<leaf>\w+)")
BUILDER_NAMES = {  # all others are the same
    "self_attn": "attn", "dense": "o_proj", "out_proj": "o_proj",
    "shared_mlp": "mlp", "input_linear": "gate_up_proj", "output_linear": "down_proj",  # Granite's hybrids
}  # fmt: skip


@dataclass(frozen=True)
class Factors:
    """The weight of a layer changes by b a.

    Attributes:
        a: [rank, in_features].
        b: [out_features, rank], multiplied by the adapter's scale.
    """

    a: torch.Tensor
    b: torch.Tensor


def load(folder: Path) -> dict[str, Factors]:
    """Loads the factors of an adapter in peft's layout, by the name of each layer in the builder's graph.

    Raises:
        InputError: there is no adapter, or it is more than LoRA on linear layers of the base model's own weights.
    """
    adapter = PeftAdapter.load(folder)
    quantization = Quantization.load(folder)
    if quantization and quantization.compensated:
        raise InputError(f"{folder}: an adapter initialised by loftq fits the rounded weights only; set build.adapters=merged")
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for name, stored in adapter.tensors.items():
        match = TENSOR.fullmatch(name)
        if not match or not LAYER.fullmatch(match["module"]):
            reason = "only LoRA factors of a layer's linear weights can be separate from the model"
            raise InputError(f"{folder}: {name} is not supported, {reason}; set build.adapters=merged")
        sides.setdefault(match["module"], {})[match["side"]] = stored.read()
    return {
        graph_name(module): Factors(both["A"], both["B"] * scale(adapter.config, module, len(both["A"])))
        for module, both in sides.items()
    }


def graph_name(module: str) -> str:
    """The builder's name for a layer that the checkpoint calls `module`."""
    layer = LAYER.fullmatch(module)
    assert layer
    block, leaf = (BUILDER_NAMES.get(name, name) for name in (layer["block"], layer["leaf"]))
    return f"model.layers.{layer['number']}.{block}.{leaf}"


def scale(config: LoraConfig, module: str, rank: int) -> float:
    """The number that peft multiplies the product of a layer's factors by."""
    alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern, module), config.lora_alpha)
    return float(alpha / (math.sqrt(rank) if config.use_rslora else rank))
