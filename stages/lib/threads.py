"""As many threads as leave each result's bits alone, so that a training gives the same on any number of cores.

Two things are done otherwise where a thread's share is short or ends at an odd place; all else in a step, attention and
reductions by row included, gives the bits of one thread.

- Products. oneMKL splits the longer side among its threads and takes another kernel for a short share, whatever MKL_CBWR says
  (2024.2 on an AMD EPYC): under 4 rows a thread where rows are split, under 12 columns where those are. From 12 a thread on
  every product tried (4 to 1,000 rows, 4 to 151,936 columns, up to 96 threads) had the bits of one thread. A product of `rows`
  rows is split by rows, or by columns if it has more of those, so 12 rows a thread are enough for both.
- Activations: SiLU, and GELU by tanh. torch computes 16 numbers of 32 bits or 32 of 16 at once, and what is left at the end of
  a thread's share one by one, which rounds otherwise (ATen/native/cpu/Loops.h); a share has 32,768 numbers or more
  (TensorIterator.h). cos, exp and their like are the same either way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

ROWS = 12  # of a product, that each thread gets at least
AT_ONCE = 32
SHARE = 32768
ACTIVATIONS = ("torch.nn.modules.activation", "transformers.activations")


def for_rows(rows: int) -> int:
    """How many threads products of `rows` rows bear, of those that there are now."""
    return max(1, min(torch.get_num_threads(), rows // ROWS))


def for_activation(x: Tensor) -> int:
    """How many threads a function of each number of `x` [..., width] bears."""
    if x.shape[-1] % AT_ONCE:
        return 1
    most = min(torch.get_num_threads(), ceil(x.numel() / SHARE))
    return next(threads for threads in range(max(1, most), 0, -1) if ceil(x.numel() / threads) % AT_ONCE == 0)


@contextmanager
def threads_for(rows: int) -> Iterator[None]:
    """For a while no more threads than products of `rows` rows bear."""
    before = torch.get_num_threads()
    torch.set_num_threads(for_rows(rows))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def enter(x: Tensor, threads: int) -> int:
    """From `x` to what `leave` is given, forward and backward, so many threads.

    Returns:
        How many there were before.
    """
    before = torch.get_num_threads()
    if x.requires_grad:
        x.register_hook(lambda _: torch.set_num_threads(before))
    torch.set_num_threads(threads)
    return before


def leave(y: Tensor, before: int) -> None:
    """The other end: `before` is what `enter` returned."""
    within = torch.get_num_threads()
    if y.requires_grad:
        y.register_hook(lambda _: torch.set_num_threads(within))
    torch.set_num_threads(before)


class SteadyActivations:
    """Hooks of a model's activations: each gets the threads that it bears."""

    def __init__(self, model: Module) -> None:
        self.before = 0
        for module in model.modules():
            if type(module).__module__ in ACTIVATIONS:
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(self._leave)

    def _enter(self, module: Module, args: tuple[Tensor]) -> None:
        if not torch.compiler.is_compiling():
            self.before = enter(args[0], for_activation(args[0]))

    def _leave(self, module: Module, args: Any, output: Tensor) -> None:
        if not torch.compiler.is_compiling():
            leave(output, self.before)
