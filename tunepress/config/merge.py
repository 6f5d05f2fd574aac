"""`merge`: which weights the adapter is added to."""

from dataclasses import dataclass
from enum import Enum


class MergeBase(Enum):
    """What the adapter is added to: the base model's own weights, or those it was trained on; for QLoRA the two differ."""

    original = "original"
    dequantized = "dequantized"


LOFTQ_ON_ORIGINAL_WEIGHTS = (
    "merge.base: an adapter initialized by loftq fits only the rounded weights; set merge.base=dequantized"
)


@dataclass
class Merge:
    """The merged model's files are cut as the base model's are, so there is no size to choose."""

    base: MergeBase
