"""Computes one weight of the merged model, some rows at a time.

The operations are those of peft's `merge_and_unload(safe_merge=True)`, in its order, so float32 weights are the same to the
bit. Weights in bfloat16 and float16 are converted to float32, and the sum is rounded once. peft does the same with DoRA, and in
most layers without `safe_merge`; with it, peft rounds LoRA's product to that type first, and then the sum again.
"""

from dataclasses import dataclass

import torch

from tunepress.core.errors import InputError
from tunepress.models.bnb_4bit import Quantization
from tunepress.models.shards import ReadRows, StoredTensor


@dataclass(frozen=True)
class LowRank:
    """LoRA's product `scaling B A`, and with DoRA the magnitudes to which the rows of the sum are scaled.

    Attributes:
        a: [r, in].
        b: [out, r].
        scaling: factor of the product.
        transposed: whether the weight is stored as [in, out], like that of an embedding or a Conv1D.
        magnitude: [out], with DoRA only.
    """

    a: StoredTensor
    b: StoredTensor
    scaling: float
    transposed: bool = False
    magnitude: StoredTensor | None = None

    @property
    def divisible(self) -> bool:
        """Whether each stored row can be computed alone: DoRA's norms are over the columns of a transposed weight."""
        return not (self.transposed and self.magnitude)

    def open(self, whole: bool) -> "Product":
        """Reads what all rows need.

        Args:
            whole: whether to compute the product at once. Then it is peft's to the bit; the last bit of a float32 product
                can depend on how many rows it has (seen with oneMKL, where a part had one row or two).
        """
        a, b = self.a.read().float(), self.b.read().float()
        magnitude = self.magnitude.read().float() if self.magnitude else None
        if whole:
            product = torch.mm(b, a).mul_(self.scaling)
            return Product(product.T if self.transposed else product, None, self.transposed, magnitude)
        left, right = (a.T, b.T) if self.transposed else (b, a)
        return Product(left * self.scaling, right, self.transposed, magnitude)


@dataclass(frozen=True)
class Product:
    """A LowRank in memory, in float32.

    Attributes:
        left: the scaled product as it is stored, or its left factor.
        right: the right factor; None if `left` is the product.
        transposed: as in LowRank.
        magnitude: as in LowRank.
    """

    left: torch.Tensor
    right: torch.Tensor | None
    transposed: bool
    magnitude: torch.Tensor | None

    def add_to(self, weight: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """Returns the merged rows.

        Args:
            weight: the stored rows from `first` to before `last` in float32; overwritten.
            first: the first row.
            last: the row after the last one.
        """
        if self.right is None:
            weight += self.left[first:last]
        else:
            weight.addmm_(self.left[first:last], self.right)
        if self.magnitude is None:
            return weight
        if self.transposed:
            return (self.magnitude / torch.linalg.norm(weight.T, dim=1)).view(1, -1) * weight
        return (self.magnitude[first:last] / torch.linalg.norm(weight, dim=1)).view(-1, 1) * weight


@dataclass(frozen=True)
class Change:
    """The new value of a tensor of the base model.

    Attributes:
        name: the tensor's name.
        original: the base model's tensor, which may be stored under the name of the one that it is tied to.
        source: the tensor that the change starts from: `like` itself, or one that the adapter replaces it with.
        quantization: the quantization that the values went through before the adapter was trained on them.
        product: what is added to a weight.
        bias: what is added to a bias, and its factor.
    """

    name: str
    original: StoredTensor
    source: StoredTensor
    quantization: Quantization | None = None
    product: LowRank | None = None
    bias: tuple[StoredTensor, float] | None = None

    @property
    def divisible(self) -> bool:
        """Whether its rows can be computed a few at a time: double quantization needs all scales of a weight."""
        return self.quantization is None and (self.product is None or self.product.divisible)

    def open(self) -> ReadRows:
        """Returns a function that computes some of the rows.

        Raises:
            InputError: from that function, if they would contain NaN or infinity.
        """
        product = self.product.open(whole=self.original.dtype is torch.float32) if self.product else None

        def rows(first: int, last: int) -> torch.Tensor:
            values = self.source.read(first, last)
            if self.quantization:
                values = self.quantization.round_trip(values)
            values = values.float()
            if product:
                values = product.add_to(values, first, last)
            if self.bias:
                bias, scaling = self.bias
                values += bias.read(first, last).float() * scaling
            merged = values.to(self.original.dtype)
            if not finite(merged):
                raise InputError(
                    f"{self.name}: would contain NaN or infinity after merging; the adapter is broken, train it again"
                )
            return merged

        return rows


def finite(values: torch.Tensor) -> bool:
    """Whether all values are finite. Their sum is faster to check than each of them, and is finite only if they are."""
    return bool(values.sum(dtype=torch.float32).isfinite() or values.isfinite().all())
