"""Splits rows into train, validation and test: by prompt, with the same share of each label, and the same in every run."""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tunepress.core.errors import InputError
from tunepress.text.segments import answer, prompt_text

Row = dict[str, Any]


@dataclass(frozen=True)
class Deduplicated:
    """The rows that are kept, and those that are dropped, by reason."""

    rows: list[Row]
    duplicates: list[Row]
    conflicts: list[Row]


def key(text: str) -> str:
    """A key that is equal for texts that differ only in Unicode form, case or white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def deduplicate(rows: Iterable[Row], exact: bool = False) -> Deduplicated:
    """Keeps the first row of each prompt, and none if rows with the same prompt expect different answers.

    Args:
        rows: prepared rows.
        exact: whether answers that differ only in Unicode form, case or white space are different, as labels are.
    """
    by_prompt: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_prompt[key(prompt_text(row))].append(row)
    kept, duplicates, conflicts = [], [], []
    for group in by_prompt.values():
        if len({answer(row) if exact else key(answer(row)) for row in group}) > 1:
            conflicts += group
        else:
            kept.append(group[0])
            duplicates += group[1:]
    return Deduplicated(kept, duplicates, conflicts)


def split(rows: list[Row], stratify: bool, test_size: float, eval_dataset_size: float, seed: int) -> dict[str, list[Row]]:
    """Splits rows of distinct prompts into train, validation and test, each in the order of `rows`.

    A row's split depends on a hash of the seed and its prompt, so an added row moves few others.

    Args:
        rows: prepared rows.
        stratify: whether to take the same share of each `expected` value.
        test_size: share of the rows for test; 0 for none.
        eval_dataset_size: share of the rows for validation; 0 for none.
        seed: seed of the order within a label.

    Raises:
        InputError: a share is out of range, or there are too few rows to fill a split.
    """
    for name, share in {"test_size": test_size, "eval_dataset_size": eval_dataset_size}.items():
        if not 0 <= share < 1:
            raise InputError(f"data.{name}: must be a share of the rows from 0 to below 1, got {share}")
    if test_size + eval_dataset_size >= 1:
        raise InputError(f"data.test_size + data.eval_dataset_size: {test_size + eval_dataset_size} leaves no training rows")
    strata: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        strata[answer(row) if stratify else ""].append(row)
    split_of: dict[str, str] = {}
    for label, members in strata.items():
        members.sort(key=lambda row: random_key(row, seed))
        count = len(members)
        sizes = {"test": round(test_size * len(members)), "validation": round(eval_dataset_size * len(members))}
        sizes["train"] = len(members) - sum(sizes.values())
        shares = {"test": test_size, "validation": eval_dataset_size, "train": 1.0}
        for name, size in sizes.items():
            if shares[name] and not size:
                of_label = f" of label {label!r}" if label else ""
                raise InputError(f"data: {count} distinct rows{of_label} are too few for a {name} split; add rows")
            for row in members[:size]:
                split_of[prompt_text(row)] = name
            del members[:size]
    return {name: [row for row in rows if split_of[prompt_text(row)] == name] for name in ("train", "validation", "test")}


def random_key(row: Row, seed: int) -> bytes:
    """A sort key for a random order of rows that is the same in every run."""
    return hashlib.sha256(f"{seed}\n{key(prompt_text(row))}".encode()).digest()


def cap(rows: list[Row], max_rows: int | None, name: str, stratify: bool, seed: int) -> list[Row]:
    """Keeps at most `max_rows` of rows of distinct prompts, in their order; a smaller cap keeps a subset of a larger one's rows.

    Args:
        rows: prepared rows.
        max_rows: the cap; None: all rows.
        name: the cap's key in `data`, for errors.
        stratify: whether to take the same share of each `expected` value, and at least one row.
        seed: seed of the order within a label.

    Raises:
        InputError: the cap is too low.
    """
    if max_rows is None:
        return rows
    strata: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        strata[answer(row) if stratify else ""].append(row)
    minimum = max(1, len(strata))
    if max_rows < minimum:
        reason = ", a row of each label" if stratify else ""
        raise InputError(f"data.{name}: must be at least {minimum}{reason}, or null for no cap, got {max_rows}")
    if max_rows >= len(rows):
        return rows
    ranked: list[tuple[float, bytes, str]] = []
    for members in strata.values():
        keys = sorted((random_key(row, seed), prompt_text(row)) for row in members)
        ranked += [(rank / len(members), random, prompt) for rank, (random, prompt) in enumerate(keys)]
    kept = {prompt for _, _, prompt in sorted(ranked)[:max_rows]}
    return [row for row in rows if prompt_text(row) in kept]


def overlap(splits: dict[str, list[Row]]) -> list[Row]:
    """The rows whose prompt is also in an earlier split."""
    seen: dict[str, str] = {}
    shared = []
    for name, rows in splits.items():
        for row in rows:
            if seen.setdefault(key(prompt_text(row)), name) != name:
                shared.append(row)
    return shared
