"""A LoRA adapter as two factors for each layer: what a model can be given at run time in place of merged weights."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftConfig
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file

from tunepress.core.errors import InputError
from tunepress.models.bnb_4bit import Quantization

TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
LAYER = re.compile(r"(?:.+\.)?layers\.(?P<number>\d+)\.(?P<block>self_attn|mlp)\.(?P<leaf>\w+)")
BUILDERS_NAMES = {"self_attn": "attn", "dense": "o_proj", "out_proj": "o_proj"}  # those that it does not take over


@dataclass(frozen=True)
class Factors:
    """What a layer's weight gains is b a.

    Attributes:
        a: [rank, in_features].
        b: [out_features, rank], multiplied by the adapter's scale.
    """

    a: torch.Tensor
    b: torch.Tensor


def load(folder: Path) -> dict[str, Factors]:
    """The factors of an adapter in peft's layout, each by the name of its layer in the builder's graph.

    Raises:
        InputError: there is no adapter, or it is more than LoRA on the linear layers of the base model's own weights.
    """
    for name in (CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME):
        if not (folder / name).exists():
            raise InputError(f"{folder}: no {name}, so there is no adapter")
    quantization = Quantization.load(folder)
    if quantization and quantization.compensated:
        raise InputError(f"{folder}: an adapter initialised by loftq fits the rounded weights only; set build.adapters=merged")
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(folder / SAFETENSORS_WEIGHTS_NAME).items():
        named = TENSOR.fullmatch(name)
        if not named or not LAYER.fullmatch(named["module"]):
            reason = "no factor of LoRA on a layer's linear weights, so it cannot be kept apart from the model"
            raise InputError(f"{folder}: {name} is {reason}; set build.adapters=merged")
        sides.setdefault(named["module"], {})[named["side"]] = tensor
    config = PeftConfig.from_pretrained(str(folder))
    return {
        graph_name(module): Factors(both["A"], both["B"] * scale(config, module, len(both["A"])))
        for module, both in sides.items()
    }


def graph_name(module: str) -> str:
    """The builder's name of a layer that the checkpoint calls `module`."""
    layer = LAYER.fullmatch(module)
    assert layer
    block, leaf = (BUILDERS_NAMES.get(name, name) for name in (layer["block"], layer["leaf"]))
    return f"model.layers.{layer['number']}.{block}.{leaf}"


def scale(config: PeftConfig, module: str, rank: int) -> float:
    """What peft multiplies the product of a layer's factors by."""
    alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern, module), config.lora_alpha)
    return float(alpha / (math.sqrt(rank) if config.use_rslora else rank))
