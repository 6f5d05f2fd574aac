"""The rows of benchmarks.train_gpu: random tokens with lengths like those of real rows."""

import math
from random import Random

from benchmarks.models import Shape
from tunepress.text.packing import PackedSequence, pack
from tunepress.text.tokenizer import IGNORE_INDEX, Example

PAD = 0
DEVIATION = 0.6  # of the logarithms of the lengths: most rows are short, a few are long


def sequences(shape: Shape, count: int, seed: int) -> list[PackedSequence]:
    """Rows joined to `count` sequences of up to `shape.tokens` tokens; the last quarter of each row has labels.

    Args:
        shape: with the lengths of rows and sequences.
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
    drawn = random.lognormvariate(math.log(shape.median), DEVIATION)
    return min(max(round(drawn), shape.shortest), shape.longest)


def example(tokens: int, vocabulary: int, random: Random) -> Example:
    """A row of random tokens without the padding token."""
    drawn = random.choices(range(PAD + 1, vocabulary), k=tokens)
    prompt = tokens - tokens // 4
    return {"input_ids": drawn, "labels": [IGNORE_INDEX] * prompt + drawn[prompt:]}


def padded_count(learned: list[PackedSequence]) -> int:
    """Tokens that the rows of sequences take as one batch, padded to its longest."""
    rows = [len(example["input_ids"]) for sequence in learned for example in sequence]
    return len(rows) * max(rows)
