"""Quantizes a model layer by layer before the builder sees it, so that only one layer is in memory at a time."""

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM

from stages.build.quantize.blocks import QuantizedMatrix
from stages.build.quantize.checkpoint import ARCHITECTURES, SourceModel, split
from stages.build.quantize.gptq import Curvature, gptq
from stages.build.quantize.recipe import WeightRecipe
from tunepress.core.errors import InputError
from tunepress.models.shards import Shards

Tokens = list[int]
QuantizedLayer = dict[str, QuantizedMatrix]  # the weights of a layer by module, fused ones split
BATCH_TOKENS = 1024  # higher is faster, until the products are large enough, and takes more memory


def unsupported_reason(precision: str, options: dict[str, Any], block_size: int, source: SourceModel) -> str | None:
    """Why a model cannot be quantized layer by layer, so that the builder must load all of it and round it itself.

    Args:
        precision: of the recipe.
        options: the result of the builder's parse_extra_options.
        block_size: number of input features that share a scale.
        source: the model.

    Returns:
        The reason, or None if it can be quantized here.
    """
    architecture, builder_only = source.config.architectures[0], ("use_qdq", "matmulnbits_weights_prepacked")
    if precision not in ("int4", "int8"):
        return f"build.precision={precision} does not quantize"
    if architecture not in ARCHITECTURES:
        return f"{architecture} is not one of {', '.join(ARCHITECTURES)}"
    if any(options.get(name) for name in builder_only):
        return f"build.extra_options.{next(name for name in builder_only if options.get(name))} needs the builder's own rounding"
    if set(options.get("nodes_to_exclude", [])) - {"/lm_head/MatMul"}:
        return "build.nodes_to_exclude names more than /lm_head/MatMul"
    columns = source.column_counts()
    module = next((name for name, count in columns.items() if count % block_size), None)
    return f"build.block_size={block_size} does not divide the {columns[module]} columns of {module}" if module else None


def round_to_nearest(source: SourceModel, recipe: WeightRecipe) -> Iterator[QuantizedLayer]:
    """Yields the weights of each layer, rounded to the nearest by onnxruntime's quantizers."""
    for number in tqdm(range(source.config.num_hidden_layers), desc="rounding", unit="layer"):
        yield {
            part: recipe.quantize(weight, recipe.bits_of(part))
            for module, name in source.matrices(number).items()
            for part, weight in split(module, checked(source.read(name), name, source, recipe), source.config).items()
        }


def quantize_with_gptq(source: SourceModel, recipe: WeightRecipe, rows: list[Tokens]) -> Iterator[QuantizedLayer]:
    """Yields the weights of each layer, quantized by GPTQ for the inputs that the layers before make of `rows`."""
    model = OffloadedModel(source.folder)
    batches = model.embed(rows)
    for number, layer in tqdm(model.load_layers(), total=len(model.layers), desc="gptq", unit="layer"):
        for module, name in source.matrices(number).items():
            checked(layer.get_submodule(module.split(".", 3)[3]).weight, name, source, recipe)
        quantized: QuantizedLayer = {}
        for group in modules_by_input(layer, number, batches[0]):
            curvature = Curvature.of(second_moment(layer, number, batches, group[0]))
            for name in group:
                linear = layer.get_submodule(name)
                assert isinstance(linear, Linear)
                parts = {
                    part: gptq(weight, curvature, recipe.block_size, recipe.bits_of(part), recipe.symmetric, recipe.dtype)
                    for part, weight in split(f"model.layers.{number}.{name}", linear.weight.data, source.config).items()
                }
                linear.weight.data = torch.cat([part.dequantized().float() for part in parts.values()])
                quantized |= parts
        for batch, hidden in zip(batches, run(layer, number, batches), strict=True):
            batch.hidden = hidden
        yield quantized


def checked(weight: Tensor, name: str, source: SourceModel, recipe: WeightRecipe) -> Tensor:
    """Returns the weight.

    Raises:
        InputError: it has values that the type of the scales cannot represent.
    """
    largest, limit = float(weight.detach().abs().max()), torch.finfo(recipe.dtype).max
    if not math.isfinite(largest):
        raise InputError(f"{source.folder}: {name} contains {largest}; the training has diverged: lower train.learning_rate")
    if largest > limit:
        dtype = str(recipe.dtype).removeprefix("torch.")
        cure = "set build.extra_options={use_cuda_bf16: true} (CUDA)"
        raise InputError(f"{source.folder}: {name} contains {largest:g}, above the maximum of {dtype} ({limit:g}); {cure}")
    return weight


@dataclass
class Batch:
    """Sequences of one length between two layers.

    Attributes:
        hidden: [sequences, tokens, hidden_size].
        kwargs: for each layer the other arguments that the model passes to it, such as masks and positions.
    """

    hidden: Tensor
    kwargs: list[dict[str, Any]]


class OffloadedModel:
    """The decoder of a causal language model, whose layers are on torch's meta device until they are needed."""

    def __init__(self, folder: Path) -> None:
        self.tensors = Shards.of(folder).tensors
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
        self.decoder = model.eval().get_decoder()
        self.prefix = next(name for name, module in model.named_modules() if module is self.decoder)
        self.layers: list[Module] = list(self.decoder.layers)
        self.decoder.rotary_emb = type(self.decoder.rotary_emb)(config=config)  # its buffers are in no file

    @torch.no_grad()
    def embed(self, sequences: list[Tokens]) -> list[Batch]:
        """Returns the inputs of the first layer; a batch has sequences of one length, so none is padded."""
        by_length: dict[int, list[Tokens]] = defaultdict(list)
        for tokens in sequences:
            by_length[len(tokens)].append(tokens)
        self._load(self.decoder.embed_tokens, "embed_tokens")
        batches = [
            self._first_inputs(torch.tensor(same_length[start : start + max(1, BATCH_TOKENS // length)]))
            for length, same_length in sorted(by_length.items())
            for start in range(0, len(same_length), max(1, BATCH_TOKENS // length))
        ]
        self.decoder.embed_tokens.to("meta")
        return batches

    def _first_inputs(self, input_ids: Tensor) -> Batch:
        """Runs the model with layers that compute nothing and record their arguments."""
        batch = Batch(torch.empty(0), [])

        def record(hidden_states: Tensor, **kwargs: Any) -> Tensor:
            batch.hidden = hidden_states
            batch.kwargs.append(kwargs)
            return hidden_states

        norm = self.decoder.norm
        for layer in self.layers:
            layer.forward = record
        self.decoder.norm = torch.nn.Identity()
        self.decoder(input_ids=input_ids, use_cache=False)
        self.decoder.norm = norm
        for layer in self.layers:
            del layer.forward
        return batch

    def load_layers(self) -> Iterator[tuple[int, Module]]:
        """Yields each layer with its weights as float32; they are dropped when the next layer is requested."""
        for number, layer in enumerate(self.layers):
            self._load(layer, f"layers.{number}")
            yield number, layer
            layer.to("meta")

    def _load(self, module: Module, name: str) -> None:
        module.to_empty(device="cpu")
        for parameter, values in module.named_parameters():
            values.data = self.tensors[f"{self.prefix}.{name}.{parameter}"].read().float()


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
