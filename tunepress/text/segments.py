"""A row as segments: the texts that a model reads, and those that it learns to write.

A prepared row is {"source": ..., "segments": [{"text": ..., "train": false}, {"text": ..., "train": true, "expected": ...}]}. One
of a template has two segments, a conversation of n turns 2n. `expected` is the answer in a trained text without its markup.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

Segment = dict[str, Any]
Row = Mapping[str, Any]  # with `segments`


@dataclass(frozen=True)
class Turn:
    """A trained segment of a row.

    Attributes:
        source: file and number of the row.
        prompt: the text of all segments before it.
        completion: its text.
        expected: the answer in the completion.
        name: of the row's dataset, if it is one of several.
    """

    source: str
    prompt: str
    completion: str
    expected: str
    name: str | None = None

    def with_answer(self, answer: str) -> str:
        """The completion with another answer in the place of the expected one."""
        before, _, after = self.completion.partition(self.expected)
        return before + answer + after


def context(text: str) -> Segment:
    """A segment that the model reads."""
    return {"text": text, "train": False}


def learned(text: str, expected: str) -> Segment:
    """A segment that the model learns to write."""
    return {"text": text, "train": True, "expected": expected}


def turns(row: Row) -> list[Turn]:
    """Each trained segment of a row, after its true history."""
    result, history = [], ""
    for segment in row["segments"]:
        if segment["train"]:
            result.append(Turn(row["source"], history, segment["text"], segment["expected"], row.get("name")))
        history += segment["text"]
    return result


def last_turn(row: Row) -> Turn:
    return turns(row)[-1]


def evaluated(rows: Iterable[Row], all_turns: bool) -> list[Turn]:
    """The turns of rows that a model is evaluated on, by default the last of each row."""
    return [turn for row in rows for turn in (turns(row) if all_turns else [last_turn(row)])]


def evenly_spaced(rows: list[Any], count: int) -> list[Any]:
    """`count` of the rows, or all if they are fewer, evenly spaced over all of them."""
    count = min(count, len(rows))
    return [rows[position * len(rows) // count] for position in range(count)]


def prompt_text(row: Row) -> str:
    """The text before the first trained segment, by which rows are compared and split."""
    return "".join(segment["text"] for segment in takewhile(lambda segment: not segment["train"], row["segments"]))


def answer(row: Row) -> str:
    """What a row teaches: the answers of all its trained segments."""
    return "\0".join(segment["expected"] for segment in row["segments"] if segment["train"])
