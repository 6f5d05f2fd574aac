"""threads: fewer of them where a share would be too short, forward and backward, and the bits of one thread."""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers.activations import ACT2FN

from stages.lib.threads import SHARE, SteadyActivations, enter, for_activation, for_rows, leave, threads_for


@pytest.fixture(autouse=True)
def sixteen() -> Iterator[None]:
    """Sixteen threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(16)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("rows", "threads"), [(0, 1), (11, 1), (24, 2), (191, 15), (192, 16), (5000, 16)])
def test_each_thread_gets_twelve_rows_or_more(rows: int, threads: int) -> None:
    assert for_rows(rows) == threads
    with threads_for(rows):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 16


@pytest.mark.parametrize(
    ("shape", "threads"),
    [
        ((10, 64), 1),  # less than torch splits
        ((2 * SHARE // 64, 64), 2),
        ((409, 1536), 16),
        ((1, 409, 1216), 2),  # 409 * 1,216 = 32 * 2 * 19 * 409, and more than 15 threads would get too little each
        ((4000, 100), 1),  # a row itself ends at an odd place
    ],
)
def test_a_share_of_an_activation_ends_where_torch_computes_as_many_numbers_as_ever(shape: tuple[int, ...], threads: int) -> None:
    assert for_activation(torch.empty(shape)) == threads


class Seen(torch.autograd.Function):
    """The identity, which notes how many threads there are."""

    noted: ClassVar[list[int]] = []

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        Seen.noted.append(torch.get_num_threads())
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        Seen.noted.append(torch.get_num_threads())
        return grads[0]


def test_between_enter_and_leave_there_are_few_threads_forward_and_backward() -> None:
    Seen.noted.clear()
    x = Seen.apply(torch.ones(3, requires_grad=True))
    before = enter(x, 2)
    y = Seen.apply(x * 2)
    leave(y, before)
    Seen.apply(y * 3).sum().backward()
    assert Seen.noted == [16, 2, 16, 16, 2, 16]
    assert torch.get_num_threads() == 16


def gradient(activation: torch.nn.Module, x: Tensor) -> list[Tensor]:
    given = x.clone().requires_grad_()
    found = activation(given * 1.0)
    found.backward(torch.ones_like(found).cumsum(-1))
    assert given.grad is not None
    return [found, given.grad]


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_pytorch_tanh", "quick_gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_give_the_bits_of_one_thread(name: str, dtype: torch.dtype) -> None:
    activation, x = ACT2FN[name], torch.randn(1, 409, 1536, generator=torch.Generator().manual_seed(0)).to(dtype)
    SteadyActivations(activation)
    torch.set_num_threads(1)
    expected = gradient(activation, x)
    for threads in (2, 3, 5, 7, 16):
        torch.set_num_threads(threads)
        assert all(map(torch.equal, gradient(activation, x), expected)), threads
        assert torch.get_num_threads() == threads
