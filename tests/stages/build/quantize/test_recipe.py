"""onnxruntime's quantizers on blocks at the ends of a type's range."""

import pytest
import torch
from torch import Tensor

from stages.build.quantize.recipe import WeightRecipe

TYPES = [torch.float32, torch.float16, torch.bfloat16]


def nearest(weight: Tensor, method: str, dtype: torch.dtype, symmetric: bool, bits: int) -> Tensor:
    recipe = WeightRecipe(method, bits, 32, symmetric, dtype, packed=True, upgraded={})
    return recipe.quantize(weight, bits).dequantized().float()


@pytest.fixture(scope="module")
def weight() -> Tensor:
    return torch.randn(8, 128, generator=torch.Generator().manual_seed(0)) * 0.1


@pytest.mark.parametrize(
    ("method", "dtype"),
    [(method, dtype) for method in ("default", "rtn", "k_quant") for dtype in TYPES if method == "default" or dtype != TYPES[2]],
)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("size", [0, 1e-30, 1e-9, 1e-6, 1e-5], ids=str)
def test_a_block_of_next_to_nothing_stays_next_to_nothing(
    weight: Tensor, method: str, dtype: torch.dtype, symmetric: bool, bits: int, size: float
) -> None:
    small = weight.clone()
    small[3, 32:64] *= size
    rounded, before = (nearest(scaled, method, dtype, symmetric, bits) for scaled in (small, weight))
    assert (rounded[3, 32:64] - small[3, 32:64]).abs().max() <= torch.finfo(torch.float16).tiny
    before[3, 32:64] = rounded[3, 32:64]
    assert torch.equal(rounded, before)
