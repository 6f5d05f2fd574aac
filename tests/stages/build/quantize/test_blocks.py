"""A matrix in a few bits."""

import pytest
import torch

from stages.build.quantize.blocks import QuantizedMatrix, pack, unpack


@pytest.mark.parametrize("bits", [4, 8])
def test_packing_loses_no_code(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (5, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(unpack(pack(codes, bits), bits), codes)


def test_the_first_of_two_codes_is_in_the_lower_half_of_a_byte() -> None:
    assert pack(torch.tensor([[1, 2, 3, 4]], dtype=torch.uint8), 4).tolist() == [[0x21, 0x43]]


def test_an_odd_last_column_stands_twice() -> None:
    assert pack(torch.tensor([[1, 2, 8]], dtype=torch.uint8), 4).tolist() == [[0x21, 0x88]]


def test_a_weight_is_its_code_less_the_zero_point_times_the_scale() -> None:
    codes = torch.tensor([[0, 1, 15, 8]], dtype=torch.uint8)
    zero_points = torch.tensor([[8, 7]], dtype=torch.uint8)
    matrix = QuantizedMatrix.of(codes, torch.tensor([[0.5, 2.0]]), zero_points, 4)
    assert matrix.dequantized().tolist() == [[-4.0, -3.5, 16.0, 2.0]]


def test_neutral_zero_points_are_the_middle_of_the_codes() -> None:
    assert QuantizedMatrix.neutral_zeros(1, 3, 4).tolist() == [[0x88, 0x88]]
    assert QuantizedMatrix.neutral_zeros(1, 3, 8).tolist() == [[0x80, 0x80, 0x80]]
