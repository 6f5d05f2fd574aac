"""A quantized weight matrix: integers in blocks along the input features, each block with a scale and a zero point."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class QuantizedMatrix:
    """weight = (code - zero point) * scale, in the layout that onnxruntime's MatMulNBits reads.

    Attributes:
        qweight: uint8 [out, in * bits / 8], the first of two codes in the lower half of a byte.
        scales: [out, blocks].
        qzeros: uint8 [out, blocks * bits / 8, rounded up], packed likewise.
        bits: bits of a code, 4 or 8.
    """

    qweight: Tensor
    scales: Tensor
    qzeros: Tensor
    bits: int

    @classmethod
    def of(cls, codes: Tensor, scales: Tensor, zero_points: Tensor, bits: int) -> "QuantizedMatrix":
        """Packs codes uint8 [out, in] and zero points uint8 [out, blocks]."""
        return cls(pack(codes, bits), scales, pack(zero_points, bits), bits)

    @staticmethod
    def neutral_zeros(rows: int, blocks: int, bits: int) -> Tensor:
        """Packed zero points in the middle of the codes, which are the default of MatMulNBits."""
        return pack(torch.full((rows, blocks), 1 << (bits - 1), dtype=torch.uint8), bits)

    def dequantized(self) -> Tensor:
        """The dequantized weights, [out, in], in the type of the scales."""
        codes, zero_points = unpack(self.qweight, self.bits), unpack(self.qzeros, self.bits)
        blocks = codes.view(*self.scales.shape, -1).to(self.scales.dtype)
        return ((blocks - zero_points[:, : self.scales.shape[1], None]) * self.scales[..., None]).view(codes.shape)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Packs uint8 codes [rows, columns], with 4 bits two to a byte; an odd last column is doubled."""
    if bits == 8:
        return codes
    even = torch.cat([codes, codes[:, -1:]], dim=1) if codes.shape[1] % 2 else codes
    return even[:, ::2] | even[:, 1::2] << 4


def unpack(packed: Tensor, bits: int) -> Tensor:
    """The inverse of `pack`, with a doubled last column if there is one."""
    return packed if bits == 8 else torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)
