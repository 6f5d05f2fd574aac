"""fused_linear's products: none is computed for nothing, and each has the threads that its own shape allows."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stages.train.fused_linear import _LinearWithLora
from tunepress.models.threads import product_threads

ROWS, IN, OUT, RANK = 29, 77, 53, 16


class Products(TorchDispatchMode):
    """Notes the shape of each matrix product and the threads that computed it."""

    KINDS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[tuple[int, ...], int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in self.KINDS:
            self.noted.append((tuple(output.shape), torch.get_num_threads()))
        return output


@pytest.fixture(autouse=True)
def sixteen_threads() -> Iterator[None]:
    """Sixteen threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(16)
    yield
    torch.set_num_threads(before)


def products(learns: str) -> tuple[Products, Products]:
    """Those of the forward and of the backward pass, where some of x, a and b learn."""
    noise = torch.Generator().manual_seed(0)
    x, a, b, weight = (torch.randn(shape, generator=noise) for shape in ((ROWS, IN), (RANK, IN), (OUT, RANK), (OUT, IN)))
    for name, tensor in {"x": x, "a": a, "b": b}.items():
        tensor.requires_grad_(name in learns)
    with Products() as forward:
        y = _LinearWithLora.apply(x, weight, None, a, b, 2.0)
    with Products() as backward:
        y.backward(torch.ones_like(y))
    return forward, backward


@pytest.mark.parametrize(("learns", "count"), [("xab", 5), ("ab", 3), ("xa", 4), ("xb", 4), ("x", 3), ("a", 2)])
def test_no_gradient_is_computed_that_nobody_asked_for(learns: str, count: int) -> None:
    forward, backward = products(learns)
    assert len(forward.noted) == 3
    assert len(backward.noted) == count


def test_each_product_has_the_threads_that_its_shape_allows() -> None:
    forward, backward = products("xab")
    narrow, wide = product_threads(ROWS, RANK), product_threads(ROWS, OUT)
    assert [threads for _, threads in forward.noted] == [narrow, wide, wide]
    expected = sorted([((ROWS, RANK), 2), ((ROWS, IN), 6), ((ROWS, IN), 6), ((RANK, IN), 6), ((RANK, OUT), 4)])
    assert sorted(backward.noted) == expected
    assert torch.get_num_threads() == 16
