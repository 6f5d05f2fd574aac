"""Fuses a frozen linear layer and its LoRA product into one operation with its own backward pass.

peft computes `base(x) + B(A(x)) * scale` in separate operations, which read and write an intermediate as wide as the output
twice, forward and backward. Here both products accumulate in one output, and so do their gradients.
"""

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch.autograd.function import once_differentiable

from tunepress.models.layerwise_casting import CastingLinear
from tunepress.models.threads import limited_threads


class FusedLinear(Linear):
    """peft's LoRA layer, for `LoraConfig._register_custom_module`; it falls back to peft's code where `_can_fuse` is false."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args or kwargs or len(self.active_adapters) != 1 or not self._can_fuse(self.active_adapters[0], x):
            return super().forward(x, *args, **kwargs)
        base, dtype, (name,) = self.base_layer, compute_dtype(x), self.active_adapters
        a, b = self.lora_A[name].weight.to(dtype), self.lora_B[name].weight.to(dtype)
        x, dropout = x.to(dtype), self.lora_dropout[name]
        dropped = dropout(x) if dropout.training and isinstance(dropout, torch.nn.Dropout) else None
        cast = base.float_weight if isinstance(base, CastingLinear) else None
        return _LinearWithLora.apply(x, base.weight, base.bias, a, b, self.scaling[name], dropped, cast)

    def _can_fuse(self, name: str, x: torch.Tensor) -> bool:
        """Whether the layer is a frozen product with plain LoRA, all in one floating-point type."""
        if self.disable_adapters or self.merged or name not in self.lora_A or name in self.lora_variant:
            return False
        base, a, b = self.base_layer, self.lora_A[name], self.lora_B[name]
        frozen = not any(parameter.requires_grad for parameter in base.parameters())
        dropout = type(self.lora_dropout[name]) in (torch.nn.Identity, torch.nn.Dropout)
        plain = type(base) in (torch.nn.Linear, CastingLinear) and b.bias is None and dropout
        dtype = torch.float32 if isinstance(base, CastingLinear) else base.weight.dtype
        one_type = dtype == compute_dtype(x) and (autocast(x) or a.weight.dtype == x.dtype)
        return frozen and plain and one_type and not torch.compiler.is_compiling()  # torch.compile fuses them itself


def autocast(x: torch.Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    return torch.get_autocast_dtype(x.device.type) if autocast(x) else x.dtype


class _LinearWithLora(torch.autograd.Function):
    """x W^T + bias + scale d A^T B^T, where d is x or x after dropout, with gradients of x, d, A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        dropped: torch.Tensor | None = None,
        cast: Callable[[], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The output [..., out] of x [..., in], weight [out, in], bias [out], a [r, in], b [out, r] and dropped [..., in].

        If `weight` is not in the type of x, `cast` returns it in that type.
        """
        rows = x.reshape(-1, x.shape[-1])
        learned = x if dropped is None else dropped
        with limited_threads(len(rows), len(a)):
            thin = (learned.reshape(rows.shape) @ a.t()).mul_(scale)
        with limited_threads(len(rows), len(weight)):
            out = torch.nn.functional.linear(rows, cast() if cast else weight, bias).addmm_(thin, b.t())
        ctx.save_for_backward(learned, weight, a, b, thin)
        ctx.scale, ctx.drops, ctx.cast = scale, dropped is not None, cast
        return out.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of forward's arguments; None for the frozen ones."""
        learned, weight, a, b, thin = ctx.saved_tensors
        grad_x = grad_dropped = None
        grad = grad.reshape(-1, grad.shape[-1])
        rows, (r, features) = len(grad), a.shape
        with limited_threads(rows, r):
            grad_thin = (grad @ b).mul_(ctx.scale)
        with limited_threads(rows, features):
            if ctx.needs_input_grad[0]:
                grad_x = grad @ (ctx.cast() if ctx.cast else weight)
                if ctx.drops:
                    grad_dropped = (grad_thin @ a).view_as(learned)
                else:
                    grad_x.addmm_(grad_thin, a)
                grad_x = grad_x.view_as(learned)
        with limited_threads(r, features):
            grad_a = grad_thin.t() @ learned.reshape(-1, features) if ctx.needs_input_grad[3] else None
        with limited_threads(r, grad.shape[-1]):
            grad_b = (thin.t() @ grad).t() if ctx.needs_input_grad[4] else None  # this way round a CPU is faster
        return grad_x, None, None, grad_a, grad_b, None, grad_dropped, None
