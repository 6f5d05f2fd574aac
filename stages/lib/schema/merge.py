"""`merge`: how the merged model is written."""

from dataclasses import dataclass


@dataclass
class Merge:
    """Field of transformers' save_pretrained of the same name."""

    max_shard_size: str
