"""The corpus: which rows are packed into one sequence of the model.

The batch size counts sequences. The examples of a sequence are concatenated without padding and by default do not attend to
each other: each has its own position ids. An example is never truncated to fill a sequence.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from tunepress.core.errors import InputError
from tunepress.core.files import write_json
from tunepress.text.tokenizer import IGNORE_INDEX, Example

FILE_NAME = "corpus.json"

PackedSequence = list[Example]


@dataclass(frozen=True)
class Corpus:
    """How `train` packs the prepared rows into sequences; `prepare` writes it next to them.

    Attributes:
        pad_to_max_len: pad each sequence to this number of tokens; None: no padding.
        use_attention_mask: examples of a sequence do not attend to each other; if False, each attends to those before it.
    """

    pad_to_max_len: int | None
    use_attention_mask: bool

    def save(self, folder: Path) -> None:
        write_json(folder / FILE_NAME, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Corpus":
        """Reads corpus.json from `folder`.

        Raises:
            InputError: the file does not exist or is not valid.
        """
        path = folder / FILE_NAME
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path}: not made by `prepare` ({error}); run `make repro`") from error

    def sequence(self, examples: list[Example], pad_token_id: int) -> PackedSequence:
        """Packs the examples of some rows into one sequence."""
        packed = examples if self.use_attention_mask else [concatenate(examples)]
        missing = (self.pad_to_max_len or 0) - token_count(packed)
        if missing <= 0:
            return packed
        return [*packed, {"input_ids": [pad_token_id] * missing, "labels": [IGNORE_INDEX] * missing}]


def token_count(sequence: PackedSequence) -> int:
    """The total number of tokens of a sequence."""
    return sum(len(example["input_ids"]) for example in sequence)


def concatenate(examples: list[Example]) -> Example:
    """Concatenates examples into one, in which each attends to those before it."""
    return {name: [token for example in examples for token in example[name]] for name in ("input_ids", "labels")}


def group_by_sequence(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Groups prepared rows by the sequence that `prepare` assigned to them."""
    grouped: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["sequence"], []).append(row)
    return list(grouped.values())


def pack(lengths: list[int], strategy: str, source_max_len: int, max_samples: int | None, seed: int) -> list[list[int]]:
    """Assigns rows to sequences.

    Args:
        lengths: of the rows, in tokens; at most `source_max_len` each.
        strategy: line-by-line, one row per sequence; join, as many rows as fit a sequence, in their order; or one of them
            with the suffix `-random`, in a random order.
        source_max_len: tokens of a sequence.
        max_samples: maximum number of sequences; None: no limit.
        seed: of the random order.

    Returns:
        The indices of the rows of each sequence.
    """
    order = list(range(len(lengths)))
    if strategy.endswith("-random"):
        Random(seed).shuffle(order)  # noqa: S311  (an order, not a secret)
    if not strategy.startswith("join"):
        return [[index] for index in order][:max_samples]
    sequences: list[list[int]] = []
    room = 0
    for index in order:
        if lengths[index] > room:
            sequences.append([])
            room = source_max_len
        sequences[-1].append(index)
        room -= lengths[index]
    return sequences[:max_samples]
