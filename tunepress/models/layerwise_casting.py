"""Computes in float32 with a model whose files have 16 bits. In memory its linear layers may stay in 16 bits: each casts its own.

Every number in bfloat16 or float16 is a number in float32 too, so the results are the same bits in about half the memory. Casting
takes time, so a model that fits into memory in float32 is loaded so. Arithmetic in bfloat16 is slower on a CPU: the
kernels that tunepress/core pins emulate it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Linear, Parameter
from torch.nn.functional import linear
from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from tunepress.core.cgroups import free_memory
from tunepress.models.hf_model import empty_model, load_model
from tunepress.models.shards import Shards

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SIXTEEN_BITS = ("BF16", "F16")
RESERVE = 2.0  # free memory for a model that computes, relative to its weights


class CastingLinear(Linear):
    """A frozen linear layer with a weight in 16 bits, and with input, bias and output in float32.

    Args:
        layer: the layer that it replaces.
        weight: in 16 bits.

    Attributes:
        weight: the 16 bits of each number as an integer, because peft and torch's `float()` cast floating-point weights only.
        dtype: the type of those numbers.
        buffer: memory for a weight in float32, one for all layers: the system clears new memory before it is used.
    """

    buffer = torch.empty(0)

    def __init__(self, layer: Linear, weight: Tensor) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.dtype = weight.dtype
        self.weight = Parameter(weight.view(torch.int16), requires_grad=False)
        self.bias = layer.bias
        if len(CastingLinear.buffer) < weight.numel():
            CastingLinear.buffer = torch.empty(weight.numel())

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = _CastingProduct.apply(x, self)
        return output

    def float_weight(self) -> Tensor:
        """The weight in float32, until the next call for any layer."""
        stored = self.weight.view(self.dtype)
        return CastingLinear.buffer[: stored.numel()].view(stored.shape).copy_(stored)


class _CastingProduct(torch.autograd.Function):
    """x W^T + bias, with the gradient of x. The backward pass casts the weight again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: CastingLinear) -> Tensor:
        ctx.layer = layer
        return linear(x, layer.float_weight(), layer.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.float_weight(), None


def in_sixteen_bits(folder: Path) -> bool:
    """Whether the weights of a model folder have 16 bits."""
    return all(tensor.kind in SIXTEEN_BITS for tensor in Shards.of(folder).tensors.values())


def fits_in_float32(folder: Path) -> bool:
    """Whether the model of a folder can be loaded in float32 and compute within the free memory."""
    return 4 * RESERVE * sum(parameter.numel() for parameter in empty_model(folder).parameters()) <= free_memory()


@torch.no_grad()
def load_in_float32(folder: Path, *, casts: bool, **options: Any) -> "PreTrainedModel":
    """Loads a model that computes in float32.

    Files in 16 bits are read tensor by tensor: from_pretrained maps them into memory next to the model (transformers 5.23).

    Args:
        folder: as `fetch` and `merge` leave it.
        casts: whether linear layers stay in 16 bits if the files have 16 bits.
        options: of from_pretrained and of from_config.
    """
    if not in_sixteen_bits(folder):
        return load_model(folder, dtype=torch.float32, **options)
    model, tensors = empty_model(folder, dtype=torch.float32, **options).eval(), Shards.of(folder).tensors
    for name, parameter in list(model.named_parameters()):  # tied ones under their first name, which is the embedding's
        owner, _, key = name.rpartition(".")
        module, values = model.get_submodule(owner), tensors[name].read()
        if casts and type(module) is Linear and key == "weight":
            model.set_submodule(owner, CastingLinear(module, values))
        else:
            setattr(module, key, Parameter(values.float(), parameter.requires_grad))
    model.tie_weights()
    if (folder / GENERATION_CONFIG_NAME).exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model
