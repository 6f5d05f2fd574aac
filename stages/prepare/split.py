"""Which rows train, validate and test: by phrase, in the same shares of each label, and the same at every run."""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tunepress.core.errors import InputError

Row = dict[str, Any]


@dataclass(frozen=True)
class Deduplicated:
    """Rows that are left, and those that are not, by reason."""

    rows: list[Row]
    duplicates: list[Row]
    conflicts: list[Row]


def key(text: str) -> str:
    """What two texts share when only Unicode form, case or white space tell them apart."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def deduplicate(rows: Iterable[Row], exact: bool = False) -> Deduplicated:
    """Keeps the first row of each prompt; where rows of one prompt expect different answers, none is kept.

    Args:
        rows: with `prompt` and `expected`.
        exact: answers that differ only in Unicode form, case or white space are different too, as labels are.
    """
    by_prompt: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_prompt[key(row["prompt"])].append(row)
    kept, duplicates, conflicts = [], [], []
    for same in by_prompt.values():
        if len({row["expected"] if exact else key(row["expected"]) for row in same}) > 1:
            conflicts += same
        else:
            kept.append(same[0])
            duplicates += same[1:]
    return Deduplicated(kept, duplicates, conflicts)


def split(rows: list[Row], stratify: bool, test_size: float, eval_dataset_size: float, seed: int) -> dict[str, list[Row]]:
    """Splits rows of distinct prompts into train, validation and test, each in the order of `rows`.

    A row's place follows from a hash of the seed and its prompt, so an added row moves few others.

    Args:
        rows: with `prompt` and `expected`.
        stratify: take the same share of each `expected` value.
        test_size: share of the rows for test; 0 for none.
        eval_dataset_size: share of the rows for validation; 0 for none.
        seed: of the order within a label.

    Raises:
        InputError: a share out of range, or too few rows to fill a split.
    """
    for name, share in {"test_size": test_size, "eval_dataset_size": eval_dataset_size}.items():
        if not 0 <= share < 1:
            raise InputError(f"data.{name}: {share} is no share of the rows (0 to below 1)")
    if test_size + eval_dataset_size >= 1:
        raise InputError(f"data.test_size + data.eval_dataset_size: {test_size + eval_dataset_size} leaves no training rows")
    strata: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        strata[row["expected"] if stratify else ""].append(row)
    place: dict[str, str] = {}
    for label, members in strata.items():
        members.sort(key=lambda row: place_of(row, seed))
        count = len(members)
        sizes = {"test": round(test_size * len(members)), "validation": round(eval_dataset_size * len(members))}
        sizes["train"] = len(members) - sum(sizes.values())
        shares = {"test": test_size, "validation": eval_dataset_size, "train": 1.0}
        for name, size in sizes.items():
            if shares[name] and not size:
                of_label = f" of label {label!r}" if label else ""
                raise InputError(f"data: {count} distinct rows{of_label} are too few for a {name} split; add rows")
            for row in members[:size]:
                place[row["prompt"]] = name
            del members[:size]
    return {name: [row for row in rows if place[row["prompt"]] == name] for name in ("train", "validation", "test")}


def place_of(row: Row, seed: int) -> bytes:
    """What orders rows at random, always alike."""
    return hashlib.sha256(f"{seed}\n{key(row['prompt'])}".encode()).digest()


def capped(rows: list[Row], most: int | None, name: str, stratify: bool, seed: int) -> list[Row]:
    """At most so many of some rows of distinct prompts, in their order; a smaller cap keeps some of what a larger one keeps.

    Args:
        rows: with `prompt` and `expected`.
        most: the cap; None: all rows.
        name: the cap's key in `data`, for errors.
        stratify: take the same share of each `expected` value, and at least one row.
        seed: of the order within a label.

    Raises:
        InputError: the cap is too low for that.
    """
    if most is None:
        return rows
    strata: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        strata[row["expected"] if stratify else ""].append(row)
    least = max(1, len(strata))
    if most < least:
        why = ", a row of each label" if stratify else ""
        raise InputError(f"data.{name}: must be at least {least}{why}, or null for no cap, got {most}")
    if most >= len(rows):
        return rows
    ranked: list[tuple[float, bytes, str]] = []
    for members in strata.values():
        places = sorted((place_of(row, seed), row["prompt"]) for row in members)
        ranked += [(rank / len(members), place, prompt) for rank, (place, prompt) in enumerate(places)]
    kept = {prompt for _, _, prompt in sorted(ranked)[:most]}
    return [row for row in rows if row["prompt"] in kept]


def overlap(splits: dict[str, list[Row]]) -> list[Row]:
    """Rows whose prompt stands in an earlier split too."""
    seen: dict[str, str] = {}
    found = []
    for name, rows in splits.items():
        for row in rows:
            if seen.setdefault(key(row["prompt"]), name) != name:
                found.append(row)
    return found
