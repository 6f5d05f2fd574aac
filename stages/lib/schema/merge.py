"""`merge`: which weights the adapter is added to, and how the merged model is written."""

from dataclasses import dataclass
from enum import Enum


class MergeBase(Enum):
    """What the adapter is added to: the base model's own weights, or those it was trained on; for QLoRA the two differ."""

    original = "original"
    dequantized = "dequantized"


@dataclass
class Merge:
    """`max_shard_size` is the field of transformers' save_pretrained."""

    base: MergeBase
    max_shard_size: str
