"""What an adapter makes of one weight of the base model, computed some rows at a time.

The operations are those of peft's `merge_and_unload(safe_merge=True)`, in its order, so float32 weights become the same to
the bit. Weights in bfloat16 and float16 are brought to float32, and the sum is rounded once. So does peft with DoRA, and in
most layers without `safe_merge`; with it, it rounds LoRA's product to that type first, and then the sum again.
"""

from dataclasses import dataclass

import torch

from tunepress.core.errors import InputError
from tunepress.models.bnb_4bit import Quantization
from tunepress.models.shards import ReadRows, StoredTensor


@dataclass(frozen=True)
class LowRank:
    """LoRA's product `scaling B A`, and with DoRA the sizes to which the sum's rows are stretched.

    Attributes:
        a: [r, in].
        b: [out, r].
        scaling: of the product.
        transposed: whether the weight is stored as [in, out], as that of an embedding is, and of a Conv1D.
        magnitude: [out], of DoRA alone.
    """

    a: StoredTensor
    b: StoredTensor
    scaling: float
    transposed: bool = False
    magnitude: StoredTensor | None = None

    @property
    def divisible(self) -> bool:
        """Whether a stored row depends on no other: what DoRA measures lies across those of a transposed weight."""
        return not (self.transposed and self.magnitude)

    def opened(self, whole: bool) -> "Product":
        """With what all rows need in memory.

        Args:
            whole: whether the product is computed at once. Then it is peft's to the bit; the last bit of a float32 product
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
        right: its right factor; None: `left` is the product.
        transposed: as in LowRank.
        magnitude: as in LowRank.
    """

    left: torch.Tensor
    right: torch.Tensor | None
    transposed: bool
    magnitude: torch.Tensor | None

    def added_to(self, weight: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """What becomes of `weight`, the stored rows from `first` to before `last` in float32, which is overwritten."""
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
    """What takes the place of a tensor of the base model.

    Attributes:
        name: of the tensor.
        like: the base model's, which may be stored under the name of one that it is tied to.
        source: where its values come from: `like` itself, or a tensor that the adapter brings whole.
        rounding: what the values went through before they were trained on.
        product: what is added to a weight.
        shift: what is added to a bias, and by which factor.
    """

    name: str
    like: StoredTensor
    source: StoredTensor
    rounding: Quantization | None = None
    product: LowRank | None = None
    shift: tuple[StoredTensor, float] | None = None

    @property
    def divisible(self) -> bool:
        """Whether its rows can be made a few at a time: double quantization looks at all of a weight's scales."""
        return self.rounding is None and (self.product is None or self.product.divisible)

    def opened(self) -> ReadRows:
        """What makes some of its rows.

        Raises:
            InputError: when it is called and they would hold NaN or infinity.
        """
        product = self.product.opened(whole=self.like.dtype is torch.float32) if self.product else None

        def rows(first: int, last: int) -> torch.Tensor:
            values = self.source.read(first, last)
            if self.rounding:
                values = self.rounding.round_trip(values)
            values = values.float()
            if product:
                values = product.added_to(values, first, last)
            if self.shift:
                bias, scaling = self.shift
                values += bias.read(first, last).float() * scaling
            made = values.to(self.like.dtype)
            if not finite(made):
                raise InputError(f"{self.name}: would hold NaN or infinity after merging; the adapter is broken, train it again")
            return made

        return rows


def finite(values: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite. Their sum is quicker than a look at each, and is finite only if they are."""
    return bool(values.sum(dtype=torch.float32).isfinite() or values.isfinite().all())
