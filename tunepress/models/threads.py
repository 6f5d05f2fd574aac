"""Limits the threads of each operation so that training gives bit-identical results on any number of cores.

Two operations round differently if a thread's share is short or ends at an odd position. Everything else in a step, including
attention and reductions by row, gives the same bits as with one thread.

- Products. oneMKL splits the longer side of the result among its threads and uses another kernel for a short share, whatever
  the value of MKL_CBWR (2024.2 on an AMD EPYC): below 4 rows per thread if rows are split, below 12 columns if columns are. With
  12 or more per thread, every product tried (4 to 1,000 rows, 4 to 151,936 columns, up to 96 threads) had the same bits as with
  one thread. The narrow products are those with the factors of LoRA.
- Activations: SiLU, and GELU with tanh. torch computes 16 numbers of 32 bits or 32 of 16 bits at once, and the rest at the end of
  a thread's share one by one, which rounds differently (ATen/native/cpu/Loops.h); a share has 32,768 numbers or more
  (TensorIterator.h). cos, exp and similar functions give the same bits in both cases.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module

MIN_PER_THREAD = 12  # rows or columns of a product
VECTOR = 32  # numbers that torch computes at once, at most
GRAIN_SIZE = 32768  # numbers of a thread's share, at least
ACTIVATIONS = ("torch.nn.modules.activation", "transformers.activations")


def product_threads(rows: int, columns: int) -> int:
    """The maximum number of torch's threads for a product with a result of [rows, columns]."""
    return max(1, min(torch.get_num_threads(), max(rows, columns) // MIN_PER_THREAD))


def linear_threads(layer: Linear, x: Tensor) -> int:
    """The same for a linear layer with the input x [..., in_features], including the gradients of its input and its weight."""
    rows = x.numel() // layer.in_features
    narrow, wide = sorted((layer.in_features, layer.out_features))
    return min(product_threads(rows, narrow), product_threads(narrow, wide))


def activation_threads(x: Tensor) -> int:
    """The same for an elementwise function of x [..., width]."""
    if x.shape[-1] % VECTOR:
        return 1
    most = max(1, min(torch.get_num_threads(), ceil(x.numel() / GRAIN_SIZE)))
    return next(threads for threads in range(most, 0, -1) if ceil(x.numel() / threads) % VECTOR == 0)


@contextmanager
def limited_threads(rows: int, columns: int) -> Iterator[None]:
    """Limits torch's threads inside the block to those of a product with a result of [rows, columns]."""
    before = torch.get_num_threads()
    torch.set_num_threads(product_threads(rows, columns))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class DeterministicThreads:
    """Adds hooks to a model's activations and narrow linear layers that limit their threads, forward and backward.

    A module that multiplies by a layer's weight without calling the layer, such as FusedLinear, limits its products itself.
    """

    def __init__(self, model: Module) -> None:
        self._threads_before = 0
        threads = torch.get_num_threads()
        for module in model.modules():
            if type(module).__module__ in ACTIVATIONS:
                self._hook(module, activation_threads)
            elif isinstance(module, Linear) and min(module.in_features, module.out_features) < threads * MIN_PER_THREAD:
                self._hook(module, partial(linear_threads, module))

    def _hook(self, module: Module, limit: Callable[[Tensor], int]) -> None:
        module.register_forward_pre_hook(partial(self._enter, limit))
        module.register_forward_hook(self._leave)

    def _enter(self, limit: Callable[[Tensor], int], module: Module, args: tuple[Tensor]) -> tuple[Tensor] | None:
        if torch.compiler.is_compiling():
            return None
        trained = torch.is_grad_enabled() and any(weight.requires_grad for weight in module.parameters(recurse=False))
        # a tensor that only this module uses: when its gradient is computed, the module's backward pass has ended
        x = args[0].view_as(args[0]) if args[0].requires_grad or not trained else args[0].detach().requires_grad_()
        self._threads_before = before = torch.get_num_threads()
        if x.requires_grad:
            x.register_hook(lambda _: torch.set_num_threads(before))
        torch.set_num_threads(limit(x))
        return (x,)

    def _leave(self, module: Module, args: Any, output: Tensor) -> None:
        if torch.compiler.is_compiling():
            return
        within = torch.get_num_threads()
        if output.requires_grad:
            output.register_hook(lambda _: torch.set_num_threads(within))
        torch.set_num_threads(self._threads_before)
