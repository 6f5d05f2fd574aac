"""`merge`: which weights the adapter is added to, and how the merged model is written."""

from dataclasses import dataclass
from enum import Enum


class MergeBase(Enum):
    """The base model's weights; the two differ for an adapter of a quantized method."""

    original = "original"
    dequantized = "dequantized"


@dataclass
class Merge:
    """`max_shard_size` is the field of transformers' save_pretrained."""

    base: MergeBase
    max_shard_size: str
