"""Quantizes a model layer by layer before the builder sees it, so that only one layer is in memory unquantized at a time."""

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module
from tqdm import tqdm

from stages.build.quantize.blocks import QuantizedMatrix
from stages.build.quantize.gptq import Curvature, gptq
from stages.build.quantize.offloaded_model import Batch, OffloadedModel, Tokens
from stages.build.quantize.recipe import WeightRecipe
from tunepress.core.errors import InputError

QuantizedLayer = dict[str, QuantizedMatrix]  # the weights of a layer by module, fused ones split


def unsupported_reason(precision: str, options: dict[str, Any], block_size: int, model: OffloadedModel) -> str | None:
    """Why a model cannot be quantized layer by layer, so that the builder must load all of it and round it itself.

    Args:
        precision: of the recipe.
        options: the result of the builder's parse_extra_options.
        block_size: number of input features that share a scale.
        model: the model.

    Returns:
        The reason, or None if it can be quantized here.
    """
    builder_only = ("use_qdq", "matmulnbits_weights_prepacked")
    if precision not in ("int4", "int8"):
        return f"build.precision={precision} does not quantize"
    if any(options.get(name) for name in builder_only):
        return f"build.extra_options.{next(name for name in builder_only if options.get(name))} needs the builder's own rounding"
    if set(options.get("nodes_to_exclude", [])) - {"/lm_head/MatMul"}:
        return "build.nodes_to_exclude names more than /lm_head/MatMul"
    for layer in model.layers:
        for name, linear in model.linear_modules(layer).items():
            if linear.in_features % block_size:
                return f"build.block_size={block_size} does not divide the {linear.in_features} columns of {name}"
    return None


def round_to_nearest(model: OffloadedModel, recipe: WeightRecipe) -> Iterator[QuantizedLayer]:
    """Yields the weights of each layer, rounded to the nearest by onnxruntime's quantizers."""
    for layer in tqdm(model.load_layers(), total=len(model.layers), desc="rounding", unit="layer"):
        check_values(model, layer, recipe)
        yield {
            part: recipe.quantize(weight, recipe.bits_of(part))
            for name, linear in model.linear_modules(layer).items()
            for part, weight in model.split(name, linear.weight.data).items()
        }


def quantize_with_gptq(model: OffloadedModel, recipe: WeightRecipe, rows: list[Tokens]) -> Iterator[QuantizedLayer]:
    """Yields the weights of each layer, quantized by GPTQ for the inputs that the layers before make of `rows`."""
    batches = model.embed(rows)
    for number, name in enumerate(tqdm(model.load_layers(), total=len(model.layers), desc="gptq", unit="layer")):
        check_values(model, name, recipe)
        layer = model.layers[name]
        quantized: QuantizedLayer = {}
        for group in modules_by_input(layer, number, batches[0]):
            curvature = Curvature.of(second_moment(layer, number, batches, group[0]))
            for module in group:
                linear = layer.get_submodule(module)
                assert isinstance(linear, Linear)
                parts = {
                    part: gptq(weight, curvature, recipe.block_size, recipe.bits_of(part), recipe.symmetric, recipe.dtype)
                    for part, weight in model.split(f"{name}.{module}", linear.weight.data).items()
                }
                linear.weight.data = torch.cat([part.dequantized().float() for part in parts.values()])
                quantized |= parts
        for batch, hidden in zip(batches, run(layer, number, batches), strict=True):
            batch.hidden = hidden
        yield quantized


def check_values(model: OffloadedModel, layer: str, recipe: WeightRecipe) -> None:
    """Raises InputError if a linear module of a layer has weights that the type of the scales cannot represent."""
    limit = torch.finfo(recipe.dtype).max
    for name, linear in model.linear_modules(layer).items():
        largest = float(linear.weight.detach().abs().max())
        subject = f"{model.folder}: {name}.weight contains {largest:g}"
        if not math.isfinite(largest):
            raise InputError(f"{subject}; the training has diverged: lower train.learning_rate")
        if largest > limit:
            dtype = str(recipe.dtype).removeprefix("torch.")
            cure = "set build.extra_options={use_cuda_bf16: true} (CUDA)"
            raise InputError(f"{subject}, above the maximum of {dtype} ({limit:g}); {cure}")


@torch.no_grad()
def run(layer: Module, number: int, batches: list[Batch]) -> list[Tensor]:
    """The layer's outputs for all batches."""
    return [layer(batch.hidden, **batch.kwargs[number]) for batch in batches]


@torch.no_grad()
def modules_by_input(layer: Module, number: int, batch: Batch) -> list[list[str]]:
    """The names of a layer's linear modules in the order they run, grouped by their input."""
    calls: list[tuple[str, Tensor]] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: calls.append((name, inputs[0])))
        for name, module in layer.named_modules()
        if isinstance(module, Linear)
    ]
    layer(batch.hidden, **batch.kwargs[number])
    for hook in hooks:
        hook.remove()
    groups: list[list[str]] = []
    for position, (name, tensor) in enumerate(calls):
        if position and tensor is calls[position - 1][1]:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


@torch.no_grad()
def second_moment(layer: Module, number: int, batches: list[Batch], name: str) -> Tensor:
    """Sum of x x^T over all inputs x of one of a layer's linear modules, [in, in]."""
    module = layer.get_submodule(name)
    assert isinstance(module, Linear)
    total = torch.zeros(module.in_features, module.in_features)

    def add(_: Module, inputs: tuple[Tensor]) -> None:
        rows = inputs[0].flatten(0, -2)
        total.addmm_(rows.t(), rows)
        raise InputSeen

    hook = module.register_forward_pre_hook(add)
    for batch in batches:
        with suppress(InputSeen):
            layer(batch.hidden, **batch.kwargs[number])
    hook.remove()
    return total


class InputSeen(Exception):  # noqa: N818  (not an error)
    """Stops a layer's forward pass once the input of the module is known."""
