"""Splits rows into train, validation and test: by prompt, with the same share of each label, and the same in every run.

Rows are compared by what is before their first trained segment. Two prompts are the same if they differ only in Unicode form
(NFC) or case. Prompts that differ only in white space or in compatibility characters (2² and 22) are different, but they are
always in the same split. Of the texts only hashes are kept.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunepress.core.errors import InputError
from tunepress.text.segments import prompt_text

Row = dict[str, Any]  # with `segments`


@dataclass(frozen=True)
class Deduplicated:
    """The rows that are kept, and those that are dropped, by reason."""

    rows: list[Row]
    duplicates: list[Row]
    conflicts: list[Row]

    @property
    def total(self) -> int:
        return len(self.rows) + len(self.duplicates) + len(self.conflicts)


def key(text: str) -> str:
    """A key that is equal for texts that differ only in Unicode form or case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def deduplicate(rows: Iterable[Row], labels: bool = False) -> Deduplicated:
    """Keeps the first of the rows with the same prompt and the same answer.

    Args:
        rows: the rows, in order.
        labels: whether a prompt has only one answer; then rows with the same prompt and different answers are conflicts, and
            none of them is kept.
    """
    all_rows, prompts = [], []
    for row in rows:
        all_rows.append(row)
        prompts.append(_digest(key(prompt_text(row))))
    conflicts: dict[bytes, list[Row]] = {}
    if labels:
        first_answers: dict[bytes, str] = {}
        for row, prompt in zip(all_rows, prompts, strict=True):
            answer = _first_answer(row)
            if first_answers.setdefault(prompt, answer) != answer:
                conflicts[prompt] = []
    kept: list[Row] = []
    duplicates: list[Row] = []
    seen: set[bytes] = set()
    for row, prompt in zip(all_rows, prompts, strict=True):
        if prompt in conflicts:
            conflicts[prompt].append(row)
            continue
        pair = _digest(_reply(row), prompt)
        (duplicates if pair in seen else kept).append(row)
        seen.add(pair)
    return Deduplicated(kept, duplicates, [row for group in conflicts.values() for row in group])


def split(rows: list[Row], stratify: bool, test_size: float, eval_dataset_size: float, seed: int) -> dict[str, list[Row]]:
    """Splits rows into train, validation and test, each in the order of `rows`. All rows of a prompt are in the same split.

    The split of a row depends on a hash of the seed and its prompt, so an added row moves few others.

    Args:
        rows: the rows.
        stratify: whether to take the same share of each label.
        test_size: share of the prompts for test; 0 for none.
        eval_dataset_size: share of the prompts for validation; 0 for none.
        seed: seed of the order within a label.

    Raises:
        InputError: a share is out of range, or there are too few prompts to fill a split.
    """
    for name, share in {"test_size": test_size, "eval_dataset_size": eval_dataset_size}.items():
        if not 0 <= share < 1:
            raise InputError(f"data.{name}: must be a share of the rows from 0 to below 1, got {share}")
    if test_size + eval_dataset_size >= 1:
        raise InputError(f"data.test_size + data.eval_dataset_size: {test_size + eval_dataset_size} leaves no training rows")
    labels, label_of_row = _strata(rows, stratify)
    prompts, prompt_of_row = np.unique(random_numbers(rows, seed), return_inverse=True)  # the prompts in their random order
    label_of_prompt = np.full(len(prompts), len(labels))
    np.minimum.at(label_of_prompt, prompt_of_row, label_of_row)  # like prompts may have different labels
    split_of_prompt = np.empty(len(prompts), np.int8)
    shares = {"test": test_size, "validation": eval_dataset_size, "train": 1.0}
    for number in dict.fromkeys(label_of_row.tolist()):
        label = labels[number]
        members = np.flatnonzero(label_of_prompt == number)
        count = len(members)
        sizes = {"test": round(test_size * count), "validation": round(eval_dataset_size * count)}
        sizes["train"] = count - sum(sizes.values())
        for name, size in sizes.items():
            if count and shares[name] and not size:
                of_label = f" of label {label!r}" if label else ""
                raise InputError(f"data: {count} distinct prompts{of_label} are too few for a {name} split; add rows")
        split_of_prompt[members] = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    places = split_of_prompt[prompt_of_row].tolist()
    split_rows: dict[str, list[Row]] = {name: [] for name in ("train", "validation", "test")}
    names = list(shares)
    for row, place in zip(rows, places, strict=True):
        split_rows[names[place]].append(row)
    return split_rows


def random_numbers(rows: list[Row], seed: int) -> NDArray[np.uint64]:
    """A number for each row that gives a random order, the same in every run.

    It is the same for prompts that differ only in Unicode form, compatibility characters, case or white space.
    """
    return np.fromiter((_random_number(prompt_text(row), seed) for row in rows), np.uint64, len(rows))


def weighted(rows: list[Row], weights: Mapping[str, float], seed: int) -> list[Row]:
    """Repeats the rows of each dataset by its weight: 2 gives each row twice, 0.5 half of them, the same in every run.

    Raises:
        InputError: no rows are left.
    """
    repeated: list[Row] = []
    for name, weight in weights.items():
        members = [row for row in rows if row["name"] == name]
        whole = int(weight)
        order = np.argsort(random_numbers(members, seed), kind="stable")
        more = np.sort(order[: round((weight - whole) * len(members))])
        repeated += members * whole + [members[number] for number in more]
    if not repeated:
        raise InputError("data.datasets: the weights leave no training rows; raise them")
    return repeated


def cap(rows: list[Row], max_rows: int | None, name: str, stratify: bool, seed: int) -> list[Row]:
    """Keeps at most `max_rows` rows, in their order; a smaller cap keeps a subset of a larger one's rows.

    Args:
        rows: the rows.
        max_rows: the cap; None: all rows.
        name: the cap's key in `data`, for errors.
        stratify: whether to take the same share of each label, and at least one row.
        seed: seed of the order within a label.

    Raises:
        InputError: the cap is too low.
    """
    if max_rows is None:
        return rows
    labels, label_of_row = _strata(rows, stratify)
    minimum = max(1, len(labels))
    if max_rows < minimum:
        reason = ", a row of each label" if stratify else ""
        raise InputError(f"data.{name}: must be at least {minimum}{reason}, or null for no cap, got {max_rows}")
    if max_rows >= len(rows):
        return rows
    numbers = random_numbers(rows, seed)
    replies = np.fromiter((int.from_bytes(_digest(_reply(row))[:8]) for row in rows), np.uint64, len(rows))
    order = np.lexsort((replies, numbers, label_of_row))
    sizes = np.bincount(label_of_row)
    starts = np.cumsum(sizes) - sizes
    label_in_order = label_of_row[order]
    ranks = np.empty(len(rows))
    ranks[order] = (np.arange(len(rows)) - starts[label_in_order]) / sizes[label_in_order]
    kept = np.sort(np.lexsort((replies, numbers, ranks))[:max_rows])
    return [rows[number] for number in kept.tolist()]


def overlap(splits: dict[str, list[Row]]) -> list[Row]:
    """The rows whose prompt is also in an earlier split."""
    earlier: set[bytes] = set()
    shared = []
    for rows in splits.values():
        prompts = [_digest(key(prompt_text(row))) for row in rows]
        shared += [row for row, prompt in zip(rows, prompts, strict=True) if prompt in earlier]
        earlier.update(prompts)
    return shared


def _strata(rows: list[Row], stratify: bool) -> tuple[list[str], NDArray[np.int64]]:
    """The sorted labels, and for each row the number of its label. Without `stratify` all rows have the label ""."""
    labels = [last_answer(row) if stratify else "" for row in rows]
    numbers = {label: number for number, label in enumerate(sorted(set(labels)))}
    return list(numbers), np.fromiter((numbers[label] for label in labels), np.int64, len(rows))


def _first_answer(row: Row) -> str:
    answer: str = next(segment["expected"] for segment in row["segments"] if segment["train"])
    return answer


def last_answer(row: Row) -> str:
    """The answer in the last trained segment of a row."""
    answer: str = next(segment["expected"] for segment in reversed(row["segments"]) if segment["train"])
    return answer


def _reply(row: Row) -> str:
    """What follows the prompt: the answers, and in a conversation the texts between them."""
    texts: list[str] = []
    for segment in row["segments"]:
        if segment["train"]:
            texts.append(segment["expected"])
        elif texts:
            texts.append(segment["text"])
    return unicodedata.normalize("NFC", "\0".join(texts))


def _random_number(prompt: str, seed: int) -> int:
    like = " ".join(unicodedata.normalize("NFKC", key(prompt)).casefold().split())
    return int.from_bytes(hashlib.sha256(f"{seed}\n{like}".encode()).digest()[:8])


def _digest(text: str, prefix: bytes = b"") -> bytes:
    return hashlib.blake2b(prefix + text.encode(), digest_size=16).digest()
