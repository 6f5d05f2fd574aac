"""What `train_gpu` trains: a model's shape, and rows of random tokens with lengths like those of real rows."""

import math
from dataclasses import dataclass
from random import Random
from typing import Any

from tunepress.text.packing import PackedSequence, pack
from tunepress.text.tokenizer import IGNORE_INDEX, Example

PAD = 0
SPREAD = 0.6  # of the logarithms of the lengths: most rows are short, a few are long


@dataclass(frozen=True)
class Shape:
    """A model and the rows it is trained on.

    Attributes:
        config: fields of transformers' Phi3Config.
        tokens: of a packed sequence.
        shortest: tokens of the shortest row.
        median: tokens that half of the rows have fewer of.
        longest: tokens of the longest row.
        rank: of the adapter, and its alpha.
        matrix: rows and columns of the product that the card's rate is measured with.
    """

    config: dict[str, Any]
    tokens: int
    shortest: int
    median: int
    longest: int
    rank: int
    matrix: int


SHAPES = {
    "phi3-mini": Shape(
        {
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 32064,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
            "rope_theta": 10000.0,
            "sliding_window": 2047,
        },
        tokens=2048,
        shortest=40,
        median=180,
        longest=600,
        rank=64,
        matrix=8192,
    ),
    "tiny": Shape(
        {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "vocab_size": 320,
            "max_position_embeddings": 512,
            "original_max_position_embeddings": 512,
            "rope_theta": 10000.0,
            "sliding_window": 255,
        },
        tokens=256,
        shortest=10,
        median=40,
        longest=120,
        rank=8,
        matrix=512,
    ),
}


def sequences(shape: Shape, count: int, seed: int) -> list[PackedSequence]:
    """Rows joined to `count` sequences of up to `shape.tokens` tokens; the last quarter of each row has labels.

    Args:
        shape: says how long rows and sequences are.
        count: of the sequences.
        seed: of the lengths and the tokens.
    """
    random = Random(seed)
    enough = count * (shape.tokens // shape.shortest)
    lengths = [length(shape, random) for _ in range(enough)]
    assigned = pack(lengths, "join", shape.tokens, count, seed)
    return [[example(lengths[number], shape.config["vocab_size"], random) for number in numbers] for numbers in assigned]


def length(shape: Shape, random: Random) -> int:
    """Tokens of a row: log-normal, within the shape's limits."""
    drawn = random.lognormvariate(math.log(shape.median), SPREAD)
    return min(max(round(drawn), shape.shortest), shape.longest)


def example(tokens: int, vocabulary: int, random: Random) -> Example:
    """A row of random tokens, none of them the padding."""
    drawn = random.choices(range(PAD + 1, vocabulary), k=tokens)
    prompt = tokens - tokens // 4
    return {"input_ids": drawn, "labels": [IGNORE_INDEX] * prompt + drawn[prompt:]}


def token_count(learned: list[PackedSequence]) -> int:
    """Tokens of sequences, padding not counted."""
    return sum(len(example["input_ids"]) for sequence in learned for example in sequence)


def padded_count(learned: list[PackedSequence]) -> int:
    """Tokens that the rows of sequences take as one batch, padded to its longest."""
    rows = [len(example["input_ids"]) for sequence in learned for example in sequence]
    return len(rows) * max(rows)
