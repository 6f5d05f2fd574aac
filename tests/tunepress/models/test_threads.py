"""threads: fewer of them where a share would be too short, forward and backward, and the bits of one thread."""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import Linear, Module, Sequential
from transformers.activations import ACT2FN

from stages.train.fused_linear import _LinearWithLora
from tunepress.models.threads import (
    GRAIN_SIZE,
    DeterministicThreads,
    activation_threads,
    limited_threads,
    linear_threads,
    product_threads,
)


@pytest.fixture(autouse=True)
def sixteen() -> Iterator[None]:
    """Sixteen threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(16)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("rows", "columns", "threads"), [(0, 0, 1), (11, 5, 1), (24, 16, 2), (16, 24, 2), (10, 191, 15), (192, 16, 16), (5000, 1, 16)]
)
def test_each_thread_gets_twelve_rows_or_columns_or_more(rows: int, columns: int, threads: int) -> None:
    assert product_threads(rows, columns) == threads
    with limited_threads(rows, columns):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 16


@pytest.mark.parametrize(
    ("features", "rows", "threads"),
    [
        ((576, 16), 40, 3),  # a factor of LoRA, few positions
        ((576, 16), 400, 16),
        ((16, 128), 400, 10),  # the gradient of the other is [128, 16]
        ((576, 576), 3, 16),
    ],
)
def test_a_layer_s_narrower_side_and_its_rows_decide(features: tuple[int, int], rows: int, threads: int) -> None:
    assert linear_threads(Linear(*features), torch.empty(1, rows, features[0])) == threads


@pytest.mark.parametrize(
    ("shape", "threads"),
    [
        ((10, 64), 1),  # less than torch splits
        ((2 * GRAIN_SIZE // 64, 64), 2),
        ((409, 1536), 16),
        ((1, 409, 1216), 2),  # 409 * 1,216 = 32 * 2 * 19 * 409, and more than 15 threads would get too little each
        ((4000, 100), 1),  # a row itself ends at an odd place
    ],
)
def test_a_share_of_an_activation_ends_where_torch_computes_as_many_numbers_as_ever(shape: tuple[int, ...], threads: int) -> None:
    assert activation_threads(torch.empty(shape)) == threads


class Noting(torch.autograd.Function):
    """The identity, which notes how many threads there are."""

    noted: ClassVar[list[int]] = []

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        Noting.noted.append(torch.get_num_threads())
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        Noting.noted.append(torch.get_num_threads())
        return grads[0]


class NotingLinear(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return Noting.apply(super().forward(Noting.apply(x)))


def test_within_a_narrow_layer_there_are_few_threads_forward_and_backward() -> None:
    Noting.noted.clear()
    layer = NotingLinear(576, 16)
    DeterministicThreads(Sequential(layer, NotingLinear(576, 576)))
    x = Noting.apply(torch.ones(40, 576, requires_grad=True))
    Noting.apply(layer(x)).sum().backward()
    assert Noting.noted == [16, 3, 3, 16, 16, 3, 3, 16]
    assert torch.get_num_threads() == 16


def test_what_also_uses_the_layer_s_input_keeps_all_threads() -> None:
    Noting.noted.clear()
    narrow = Linear(576, 16)
    DeterministicThreads(narrow)
    x = torch.ones(40, 576, requires_grad=True) * 1.0
    wide = Noting.apply(x)
    (narrow(x).sum() + wide.sum()).backward()
    assert Noting.noted == [16, 16]


@pytest.mark.parametrize("rows", [40, 400])
def test_a_narrow_layer_whose_input_needs_no_gradient_leaves_all_threads(rows: int) -> None:
    """The first layer's input and DoRA's identity matrix need none: no hook on such an input would ever run."""
    layer = Linear(576, 16, bias=False)
    DeterministicThreads(layer)
    expected = torch.ones(rows, 16).t() @ torch.ones(rows, 576)
    layer(torch.ones(rows, 576)).sum().backward()
    assert torch.get_num_threads() == 16
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, expected)


def test_an_input_that_needs_no_gradient_gets_none_where_nothing_is_trained() -> None:
    layer = Linear(576, 16).requires_grad_(False)
    DeterministicThreads(layer)
    assert not layer(torch.ones(40, 576)).requires_grad
    layer.requires_grad_()
    with torch.no_grad():
        assert not layer(torch.ones(40, 576)).requires_grad


def learned(module: Module, x: Tensor) -> list[Tensor]:
    """The output and all gradients."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    output = module(x)
    output.backward(torch.sin(torch.arange(output.numel(), dtype=torch.float32)).view_as(output).to(output.dtype))
    assert x.grad is not None
    return [output, x.grad, *(weight.grad for weight in module.parameters() if weight.grad is not None)]


class Fused(Module):
    """FusedLinear's product."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (torch.nn.Parameter(torch.randn(shape)) for shape in ((16, 576), (192, 16)))
        self.register_buffer("weight", torch.randn(192, 576))

    def forward(self, x: Tensor) -> Tensor:
        return _LinearWithLora.apply(x, self.weight, None, self.a, self.b, 2.0)


def small(name: str) -> Module:
    torch.manual_seed(0)
    return {"lora_A": Linear(576, 16, bias=False), "lora_B": Linear(16, 192, bias=False), "fused": Fused()}[name]


@pytest.mark.parametrize("name", ["lora_A", "lora_B", "fused"])
def test_narrow_products_give_the_bits_of_one_thread(name: str) -> None:
    """oneMKL takes no more threads than there are cores; with two, 4 to 15 rows show a difference."""
    module = small(name)
    DeterministicThreads(module)
    for rows in (4, 15, 100):
        x = torch.randn(rows, 16 if name == "lora_B" else 576, generator=torch.Generator().manual_seed(rows))
        torch.set_num_threads(1)
        expected = learned(module, x)
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert all(map(torch.equal, learned(module, x), expected)), (rows, threads)
            assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_pytorch_tanh", "quick_gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_give_the_bits_of_one_thread(name: str, dtype: torch.dtype) -> None:
    activation, x = ACT2FN[name], torch.randn(1, 409, 1536, generator=torch.Generator().manual_seed(0)).to(dtype)
    DeterministicThreads(activation)
    torch.set_num_threads(1)
    expected = learned(activation, x)
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        assert all(map(torch.equal, learned(activation, x), expected)), threads
        assert torch.get_num_threads() == threads
