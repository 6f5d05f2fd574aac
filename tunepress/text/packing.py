"""The corpus: which rows are learned together, in one sequence of the model.

A sequence is what a batch counts. Its examples are joined without padding and, unless asked otherwise, do not see each
other: each has position ids of its own. No example is ever cut to fill a sequence.
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
    """How `train` makes sequences of the prepared rows; `prepare` writes it beside them.

    Attributes:
        pad_to_max_len: fill each sequence up to so many tokens; None: no padding.
        use_attention_mask: examples of a sequence don't see each other; False: each sees those before it.
    """

    pad_to_max_len: int | None
    use_attention_mask: bool

    def save(self, folder: Path) -> None:
        """Writes corpus.json to `folder`."""
        write_json(folder / FILE_NAME, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Corpus":
        """Reads corpus.json from `folder`.

        Raises:
            InputError: there is none, or it is not one.
        """
        path = folder / FILE_NAME
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path}: not made by `prepare` ({error}); run `make repro`") from error

    def sequence(self, examples: list[Example], pad_token_id: int) -> PackedSequence:
        """One sequence of some rows' examples."""
        joined = examples if self.use_attention_mask else [concatenate(examples)]
        missing = (self.pad_to_max_len or 0) - token_count(joined)
        if missing <= 0:
            return joined
        return [*joined, {"input_ids": [pad_token_id] * missing, "labels": [IGNORE_INDEX] * missing}]


def token_count(sequence: PackedSequence) -> int:
    """Tokens of all examples of a sequence."""
    return sum(len(example["input_ids"]) for example in sequence)


def concatenate(examples: list[Example]) -> Example:
    """Examples as one text, in which each sees those before it."""
    return {name: [token for example in examples for token in example[name]] for name in ("input_ids", "labels")}


def group_by_sequence(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Prepared rows by the sequence that `prepare` put them in."""
    grouped: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["sequence"], []).append(row)
    return list(grouped.values())


def pack(lengths: list[int], strategy: str, source_max_len: int, max_samples: int | None, seed: int) -> list[list[int]]:
    """Puts rows in sequences.

    Args:
        lengths: of the rows, in tokens; none has more than `source_max_len`.
        strategy: line-by-line, a row a sequence; join, as many rows as fit a sequence in the order they come; and both
            with `-random` behind, in an order of `seed`.
        source_max_len: tokens of a sequence.
        max_samples: no more sequences than that; None: all.
        seed: of the random order.

    Returns:
        The rows' numbers by sequence.
    """
    order = list(range(len(lengths)))
    if strategy.endswith("-random"):
        Random(seed).shuffle(order)  # noqa: S311  (an order, not a secret)
    if not strategy.startswith("join"):
        return [[number] for number in order][:max_samples]
    assigned: list[list[int]] = []
    room = 0
    for number in order:
        if lengths[number] > room:
            assigned.append([])
            room = source_max_len
        assigned[-1].append(number)
        room -= lengths[number]
    return assigned[:max_samples]
