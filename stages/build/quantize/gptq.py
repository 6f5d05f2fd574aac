"""GPTQ: int4 quantization that compensates for each weight's rounding error in the weights that are not yet rounded.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2023. The columns
are processed by decreasing activation (their `act_order`) while the blocks stay in place, so the model needs no table of
columns; the scales come from a search, weighted as GPTQ weights the errors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.build.quantize.blocks import QuantizedMatrix

DAMPING = 0.01  # added to the Hessian's diagonal, as a share of its mean
LAZY = 128  # columns whose errors are applied to the remaining ones in one product
CHUNK = 1 << 19  # numbers whose scales are searched at once: they stay in the cache, which is three times as fast
RANGES = [percent / 100 for percent in range(110, 58, -2)]  # as shares of a block's own range, which the search for scales tries


@dataclass(frozen=True)
class Curvature:
    """How much the rounding of each input feature matters, and how the others can compensate for it.

    Attributes:
        order: the features by decreasing activation, [in].
        root: upper Cholesky factor of the inverse Hessian of the features in this order, [in, in].
        importance: weight of each feature's error after the later ones have compensated for it, in the original order, [in].
    """

    order: Tensor
    root: Tensor
    importance: Tensor

    @classmethod
    def of(cls, second_moment: Tensor) -> "Curvature":
        """Takes the sum of x x^T over the inputs x, [in, in]."""
        hessian = second_moment.double()
        diagonal = hessian.diagonal()
        diagonal[diagonal == 0] = 1  # the error of a feature that is never active does not matter
        diagonal.add_(DAMPING * diagonal.mean())
        order = torch.argsort(diagonal, descending=True, stable=True)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[order][:, order]))
        root = torch.linalg.cholesky(inverse, upper=True).float()
        importance = torch.empty(len(order))
        importance[order] = root.diagonal() ** -2
        return cls(order, root, importance)


def gptq(
    weight: Tensor, curvature: Curvature, block_size: int, bits: int, symmetric: bool, dtype: torch.dtype
) -> QuantizedMatrix:
    """Rounds a weight matrix so that its products with the inputs seen change little.

    Args:
        weight: [out, in].
        curvature: the curvature of the inputs.
        block_size: number of input features that share a scale; divides their total number.
        bits: bits of a code, 4 or 8.
        symmetric: whether all zero points are the middle of the codes.
        dtype: the type of the scales.
    """
    weight = weight.float()
    chunks = weight.split(max(1, CHUNK // weight.shape[1]))
    searched = [search_scales(rows, curvature.importance, block_size, bits, symmetric, dtype) for rows in chunks]
    scales, zero_points = map(torch.cat, zip(*searched, strict=True))
    codes = round_with_compensation(weight, curvature, scales, zero_points, bits)
    return QuantizedMatrix.of(codes, scales, zero_points, bits)


def search_scales(
    weight: Tensor, importance: Tensor, block_size: int, bits: int, symmetric: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The scales [out, blocks] and zero points uint8 [out, blocks] with the least weighted error of plain rounding.

    The search tries ranges from slightly more than the block's own down to 60% of it, which clip the values outside; with
    symmetric codes also the negative scale, because there is one more code on one side of zero. Every scale is a normal number
    of its type, of either sign, and all its multiples are finite: a block of zeros has no range, and float16 has few numbers
    below 6e-5.
    """
    blocks, weights = weight.view(len(weight), -1, block_size), importance.view(1, -1, block_size)
    low, high = blocks.amin(-1).clamp(max=0), blocks.amax(-1).clamp(min=0)
    middle, top = 2 ** (bits - 1), 2**bits - 1
    smallest, largest = torch.finfo(dtype).tiny, torch.finfo(dtype).max / (middle if symmetric else 2 * middle)
    widest = (torch.maximum(-low, high) / middle if symmetric else (high - low) / top).clamp(min=smallest)
    best = torch.full_like(low, torch.inf)
    scales, zero_points = widest.clamp(max=largest).to(dtype), torch.full_like(low, middle, dtype=torch.uint8)
    for share in RANGES:
        for sign in (1, -1) if symmetric else (1,):
            scale = ((widest * share).clamp(smallest, largest) * sign).to(dtype)
            zero = torch.full_like(low, middle) if symmetric else (-low / widest).round().clamp(0, top)
            rounded = (blocks / scale.float()[..., None]).round_().add_(zero[..., None]).clamp_(0, top)
            error = rounded.sub_(zero[..., None]).mul_(scale.float()[..., None]).sub_(blocks).square_().mul_(weights).sum(-1)
            better = error < best
            best = torch.where(better, error, best)
            scales = torch.where(better, scale, scales)
            zero_points = torch.where(better, zero.to(torch.uint8), zero_points)
    return scales, zero_points


def round_with_compensation(weight: Tensor, curvature: Curvature, scales: Tensor, zero_points: Tensor, bits: int) -> Tensor:
    """The codes uint8 [out, in], with each column's error distributed over the columns after it."""
    order, root = curvature.order, curvature.root
    remaining = weight[:, order].t().contiguous()  # transposed, so that a column is contiguous in memory
    block_size = weight.shape[1] // scales.shape[1]
    scale, zero = scales.float().t().contiguous(), zero_points.float().t().contiguous()
    codes = torch.empty_like(remaining, dtype=torch.uint8)
    for start in range(0, len(order), LAZY):
        end = min(start + LAZY, len(order))
        current, errors = remaining[start:end], torch.empty_like(remaining[start:end])
        near = root[start:end, start:end]
        for row in range(end - start):
            block = int(order[start + row]) // block_size
            code = (current[row] / scale[block]).round_().add_(zero[block]).clamp_(0, 2**bits - 1)
            codes[start + row] = code.to(torch.uint8)
            errors[row] = (current[row] - (code - zero[block]) * scale[block]) / near[row, row]
            current[row + 1 :].addr_(near[row, row + 1 :], errors[row], alpha=-1)
        remaining[end:].addmm_(root[start:end, end:].t(), errors, alpha=-1)
    ordered = torch.empty_like(codes)
    ordered[order] = codes
    return ordered.t().contiguous()
