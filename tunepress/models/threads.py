"""As many threads as leave each result's bits alone, so that a training gives the same on any number of cores.

Two things are done otherwise where a thread's share is short or ends at an odd place; all else in a step, attention and
reductions by row included, gives the bits of one thread.

- Products. oneMKL splits the longer side of the result among its threads and takes another kernel for a short share, whatever
  MKL_CBWR says (2024.2 on an AMD EPYC): under 4 rows a thread where rows are split, under 12 columns where those are. From 12 a
  thread on every product tried (4 to 1,000 rows, 4 to 151,936 columns, up to 96 threads) had the bits of one thread. The factors
  of LoRA are what is narrow.
- Activations: SiLU, and GELU by tanh. torch computes 16 numbers of 32 bits or 32 of 16 at once, and what is left at the end of
  a thread's share one by one, which rounds otherwise (ATen/native/cpu/Loops.h); a share has 32,768 numbers or more
  (TensorIterator.h). cos, exp and their like are the same either way.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module
from transformers import TrainerCallback

from tunepress.core.cpu import FreeCores

MIN_PER_THREAD = 12  # rows or columns of a product that each thread gets at least
VECTOR = 32
GRAIN_SIZE = 32768
ACTIVATIONS = ("torch.nn.modules.activation", "transformers.activations")


def product_threads(rows: int, columns: int) -> int:
    """How many threads a product with a result [rows, columns] bears, of those that there are now."""
    return max(1, min(torch.get_num_threads(), max(rows, columns) // MIN_PER_THREAD))


def linear_threads(layer: Linear, x: Tensor) -> int:
    """How many a linear layer bears for x [..., in_features]: its output, and the gradients of its input and its weight."""
    rows = x.numel() // layer.in_features
    narrow, wide = sorted((layer.in_features, layer.out_features))
    return min(product_threads(rows, narrow), product_threads(narrow, wide))


def activation_threads(x: Tensor) -> int:
    """How many a function of each number of x [..., width] bears."""
    if x.shape[-1] % VECTOR:
        return 1
    most = max(1, min(torch.get_num_threads(), ceil(x.numel() / GRAIN_SIZE)))
    return next(threads for threads in range(most, 0, -1) if ceil(x.numel() / threads) % VECTOR == 0)


@contextmanager
def limited_threads(rows: int, columns: int) -> Iterator[None]:
    """For a while no more threads than such a product bears."""
    before = torch.get_num_threads()
    torch.set_num_threads(product_threads(rows, columns))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class DeterministicThreads:
    """Hooks of a model's activations and narrow linear layers: each gets the threads that it bears, forward and backward.

    A module that multiplies by a layer's weight without calling the layer, such as FusedLinear, sees to its own products.
    """

    def __init__(self, model: Module) -> None:
        self.before = 0
        threads = torch.get_num_threads()
        for module in model.modules():
            if type(module).__module__ in ACTIVATIONS:
                self._hook(module, activation_threads)
            elif isinstance(module, Linear) and min(module.in_features, module.out_features) < threads * MIN_PER_THREAD:
                self._hook(module, partial(linear_threads, module))

    def _hook(self, module: Module, bearable: Callable[[Tensor], int]) -> None:
        module.register_forward_pre_hook(partial(self._enter, bearable))
        module.register_forward_hook(self._leave)

    def _enter(self, bearable: Callable[[Tensor], int], module: Module, args: tuple[Tensor]) -> tuple[Tensor] | None:
        if torch.compiler.is_compiling():
            return None
        trained = torch.is_grad_enabled() and any(weight.requires_grad for weight in module.parameters(recurse=False))
        # a tensor whose gradient is this module's alone: where it is computed, the module's backward pass ends
        x = args[0].view_as(args[0]) if args[0].requires_grad or not trained else args[0].detach().requires_grad_()
        self.before = before = torch.get_num_threads()
        if x.requires_grad:
            x.register_hook(lambda _: torch.set_num_threads(before))
        torch.set_num_threads(bearable(x))
        return (x,)

    def _leave(self, module: Module, args: Any, output: Tensor) -> None:
        if torch.compiler.is_compiling():
            return
        within = torch.get_num_threads()
        if output.requires_grad:
            output.register_hook(lambda _: torch.set_num_threads(within))
        torch.set_num_threads(self.before)


class FreeCoresCallback(TrainerCallback):
    """Takes no more threads for a step than there are free cores; their number changes no bits here."""

    def __init__(self) -> None:
        self.free_cores = FreeCores(torch.get_num_threads())

    def on_step_begin(self, *arguments: Any, **options: Any) -> None:
        """Called before each step."""
        torch.set_num_threads(self.free_cores())
