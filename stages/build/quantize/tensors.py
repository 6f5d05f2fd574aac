"""Quantizing tensor by tensor, before the builder sees the model: which recipes can be, and how each layer's weights are."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear
from tqdm import tqdm

from stages.build.quantize.blocks import Blockwise
from stages.build.quantize.checkpoint import ARCHITECTURES, Source, split
from stages.build.quantize.gptq import Curvature, gptq
from stages.build.quantize.layers import LayerwiseModel, Tokens, by_input, run, second_moment
from stages.build.quantize.recipe import Rounding
from tunepress.core.errors import InputError

Layer = dict[str, Blockwise]  # the quantized weights of a layer by module, fused ones split


def obstacle(precision: str, options: dict[str, Any], block_size: int, source: Source) -> str | None:
    """Why the builder has to read the whole model in floats and round it itself; None if it needn't.

    Args:
        precision: of the recipe.
        options: what the builder's parse_extra_options has made of its options.
        block_size: input features that share a scale.
        source: the model.
    """
    architecture, own = source.config.architectures[0], ("use_qdq", "matmulnbits_weights_prepacked")
    if precision not in ("int4", "int8"):
        return f"build.precision={precision} rounds nothing"
    if architecture not in ARCHITECTURES:
        return f"{architecture} is none of {', '.join(ARCHITECTURES)}"
    if any(options.get(name) for name in own):
        return f"build.extra_options.{next(name for name in own if options.get(name))} is the builder's own rounding"
    if set(options.get("nodes_to_exclude", [])) - {"/lm_head/MatMul"}:
        return "build.nodes_to_exclude names more than /lm_head/MatMul"
    cut = next((name for name, width in source.widths().items() if width % block_size), None)
    return f"build.block_size={block_size} does not divide the {source.widths()[cut]} columns of {cut}" if cut else None


def nearest(source: Source, rounding: Rounding) -> Iterator[Layer]:
    """For each layer its weights, rounded to the nearest by onnxruntime's quantizers."""
    for number in tqdm(range(source.config.num_hidden_layers), desc="rounding", unit="layer"):
        yield {
            part: rounding.nearest(weight, rounding.bits_of(part))
            for module, name in source.matrices(number).items()
            for part, weight in split(module, checked(source.read(name), name, source, rounding), source.config).items()
        }


def calibrated(source: Source, rounding: Rounding, rows: list[Tokens]) -> Iterator[Layer]:
    """For each layer its weights, rounded by GPTQ for the inputs that `rows` bring there through the layers before it."""
    model = LayerwiseModel(source.folder)
    batches = model.embed(rows)
    for number, layer in tqdm(model.loaded(), total=len(model.layers), desc="gptq", unit="layer"):
        for module, name in source.matrices(number).items():
            checked(layer.get_submodule(module.split(".", 3)[3]).weight, name, source, rounding)
        found: Layer = {}
        for group in by_input(layer, number, batches[0]):
            curvature = Curvature.of(second_moment(layer, number, batches, group[0]))
            for name in group:
                linear = layer.get_submodule(name)
                assert isinstance(linear, Linear)
                parts = {
                    part: gptq(weight, curvature, rounding.block_size, rounding.bits_of(part), rounding.symmetric, rounding.dtype)
                    for part, weight in split(f"model.layers.{number}.{name}", linear.weight.data, source.config).items()
                }
                linear.weight.data = torch.cat([part.dequantized().float() for part in parts.values()])
                found |= parts
        for batch, hidden in zip(batches, run(layer, number, batches), strict=True):
            batch.hidden = hidden
        yield found


def checked(weight: Tensor, name: str, source: Source, rounding: Rounding) -> Tensor:
    """The weight.

    Raises:
        InputError: it holds what the type of the scales cannot.
    """
    largest, limit = float(weight.detach().abs().max()), torch.finfo(rounding.dtype).max
    if not math.isfinite(largest):
        raise InputError(f"{source.folder}: {name} holds {largest}; the training has diverged: lower train.learning_rate")
    if largest > limit:
        dtype = str(rounding.dtype).removeprefix("torch.")
        advice = "set build.extra_options={use_cuda_bf16: true} (CUDA)"
        raise InputError(f"{source.folder}: {name} holds {largest:g}, more than {dtype} can ({limit:g}); {advice}")
    return weight
