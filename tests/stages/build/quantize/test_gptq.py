"""GPTQ against plain rounding, by the error in what it is to keep: the products with the inputs seen."""

from typing import Any

import pytest
import torch
from torch import Tensor

from stages.build.quantize.blocks import QuantizedMatrix, unpack
from stages.build.quantize.gptq import Curvature, gptq, search_scales

FULL: dict[str, Any] = {"block_size": 32, "bits": 4, "symmetric": True, "dtype": torch.float32}


@pytest.fixture(scope="module")
def weight() -> Tensor:
    return torch.randn(48, 128, generator=torch.Generator().manual_seed(0)) * 0.1


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    """Inputs whose features go together and differ in size, as a model's do."""
    generator = torch.Generator().manual_seed(1)
    mixed = torch.randn(400, 128, generator=generator) @ torch.randn(128, 128, generator=generator)
    return mixed * torch.logspace(-1, 1, 128)


def curvature(inputs: Tensor) -> Curvature:
    return Curvature.of(inputs.t() @ inputs)


def error(weight: Tensor, rounded: Tensor, inputs: Tensor) -> float:
    return float(((weight - rounded) @ inputs.t()).square().sum())


def nearest(weight: Tensor, bits: int, symmetric: bool) -> Tensor:
    blocks = weight.view(len(weight), -1, 32)
    scales, zeros = search_scales(weight, torch.ones(weight.shape[1]), 32, bits, symmetric, torch.float32)
    codes = (blocks / scales[..., None] + zeros[..., None]).round().clamp(0, 2**bits - 1)
    return ((codes - zeros[..., None]) * scales[..., None]).view_as(weight)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_products_with_the_inputs_change_less_than_half_as_much_as_by_rounding(
    weight: Tensor, inputs: Tensor, symmetric: bool
) -> None:
    matrix = gptq(weight, curvature(inputs), **{**FULL, "symmetric": symmetric})
    assert error(weight, matrix.dequantized(), inputs) < 0.5 * error(weight, nearest(weight, 4, symmetric), inputs)


def test_eight_bits_change_far_less_than_four(weight: Tensor, inputs: Tensor) -> None:
    four, eight = (gptq(weight, curvature(inputs), **{**FULL, "bits": bits}).dequantized() for bits in (4, 8))
    assert error(weight, eight, inputs) < 0.02 * error(weight, four, inputs)


@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_that_fit_the_codes_are_kept_as_they_are(inputs: Tensor, symmetric: bool) -> None:
    exact = torch.randint(-8, 8, (16, 128), generator=torch.Generator().manual_seed(2)).float()
    exact[:, ::32], exact[:, 1::32] = -8, 7  # every block uses its whole range
    matrix = gptq(exact, curvature(inputs), **{**FULL, "symmetric": symmetric})
    assert torch.equal(matrix.dequantized(), exact)


def test_symmetric_zero_points_are_all_the_middle(weight: Tensor, inputs: Tensor) -> None:
    matrix = gptq(weight, curvature(inputs), **FULL)
    assert set(unpack(matrix.qzeros, 4).flatten().tolist()) == {8}


def test_a_feature_that_is_never_seen_does_no_harm(weight: Tensor, inputs: Tensor) -> None:
    unseen = inputs.clone()
    unseen[:, 7] = 0
    matrix = gptq(weight, curvature(unseen), **FULL)
    assert torch.isfinite(matrix.dequantized()).all()
    assert error(weight, matrix.dequantized(), unseen) < 0.5 * error(weight, nearest(weight, 4, True), unseen)


def test_the_number_of_threads_changes_nothing(weight: Tensor, inputs: Tensor) -> None:
    threads = torch.get_num_threads()
    actual = []
    for number in (1, 2):
        torch.set_num_threads(number)
        actual.append(gptq(weight, curvature(inputs), **FULL))
    torch.set_num_threads(threads)
    assert torch.equal(actual[0].qweight, actual[1].qweight)
    assert torch.equal(actual[0].scales, actual[1].scales)


TYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("size", [0, 1e-30, 1e-9, 1e-6, 1e-5], ids=str)
def test_a_block_of_next_to_nothing_does_no_harm(
    weight: Tensor, inputs: Tensor, dtype: torch.dtype, symmetric: bool, bits: int, size: float
) -> None:
    small = weight.clone()
    small[3, 32:64] *= size
    options = {**FULL, "dtype": dtype, "symmetric": symmetric, "bits": bits}
    matrix, before = (gptq(scaled, curvature(inputs), **options) for scaled in (small, weight))
    assert matrix.scales.float().abs().min() >= torch.finfo(dtype).tiny
    rounded, others = matrix.dequantized().float(), torch.arange(len(weight)) != 3
    assert torch.equal(rounded[others], before.dequantized().float()[others])
    plain = nearest(small, bits, symmetric)
    assert error(small[3:4], rounded[3:4], inputs) < 1.5 * error(small[3:4], plain[3:4], inputs)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_largest_weights_of_a_type_stay_finite(dtype: torch.dtype, symmetric: bool, bits: int) -> None:
    large = torch.full((2, 128), torch.finfo(dtype).max)
    large[:, ::2] *= -1
    scales, zeros = search_scales(large, torch.ones(128), 32, bits, symmetric, dtype)
    codes = (large.view(2, 4, 32) / scales.float()[..., None] + zeros[..., None]).round().clamp(0, 2**bits - 1).view(2, 128)
    matrix = QuantizedMatrix.of(codes.to(torch.uint8), scales, zeros, bits)
    assert torch.isfinite(matrix.dequantized()).all()
    if symmetric or dtype == torch.float16:  # the range of the others is infinite in float32, in which the search counts
        assert (matrix.dequantized().sign() == large.sign()).all()
