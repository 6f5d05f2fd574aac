"""Finds validation and test rows that are almost the same as a training row, which comparing exactly does not find.

The similarity of two prompts is the Jaccard index of their shingles: the sequences of five characters in them, where case, white
space and the marks of a sentence do not count. MinHash finds the pairs to compare; the similarity itself is exact.

Text that many rows have in common, such as the template or a system prompt, makes all of them similar. So the similarity is
calculated with and without it, and the lower value counts.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.prepare.split import key
from tunepress.core.errors import InputError
from tunepress.text.segments import prompt_text

SHINGLE = 5  # characters
MARKS = re.compile(r"""[\s.,;:!?…'"‘’“”„«»¡¿。、，；：！？،؛؟]+""")  # noqa: RUF001  # not those of arithmetic and code
PERMUTATIONS = 64
RECALL = 0.98  # of the pairs whose similarity is just the threshold, at least this share is compared
SAMPLE = 1000  # training rows, in which common text is counted
COMMON = 0.1  # of the sample; what more of its rows contain is common
COMMON_ROWS = 10  # and more than so many rows
BASE = 0x9E3779B97F4A7C15  # of the polynomial that hashes a shingle
REPORTED = 10  # dropped rows that are named

Row = dict[str, Any]  # with `segments`
Shingles = set[int]  # their hashes of 32 bits


@dataclass(frozen=True)
class NearDuplicate:
    """A held-out row, the first training row that it is too similar to, and their similarity."""

    row: Row
    training_row: Row
    similarity: float


def drop_near_duplicates(splits: dict[str, list[Row]], threshold: float) -> int:
    """Removes the validation and test rows that are near duplicates of a training row, and returns their number.

    Raises:
        InputError: none of the rows of a split remains.
    """
    leaks = near_duplicates(splits["validation"] + splits["test"], splits["train"], threshold)
    for leak in leaks[:REPORTED]:
        near = f"near duplicate of {leak.training_row['source']} (similarity {leak.similarity:.2f})"
        print(f"prepare: {leak.row['source']}: dropped as a {near}")
    if len(leaks) > REPORTED:
        print(f"prepare: {len(leaks) - REPORTED} more rows are dropped as near duplicates of training rows")
    dropped = {id(leak.row) for leak in leaks}
    for name in ("validation", "test"):
        rows = splits[name]
        splits[name] = [row for row in rows if id(row) not in dropped]
        if rows and not splits[name]:
            raise InputError(
                f"data.near_duplicates: no {name} rows are left; all have a similarity above {threshold} to a training row"
            )
    return len(leaks)


def near_duplicates(held_out: list[Row], train: list[Row], threshold: float) -> list[NearDuplicate]:
    """The rows of `held_out` with a similarity above `threshold` to a row of `train`, in their order."""
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]  # takes seconds

    common = common_shingles(train)
    index = MinHashLSH(num_perm=PERMUTATIONS, params=bands(threshold))
    minhash = MinHash(PERMUTATIONS, hashfunc=int)  # shingles are hashes already
    for number, row in enumerate(held_out):
        minhash.clear()
        minhash.update_batch(without(shingles(row), common))
        index.insert(number, minhash)
    leaks: dict[int, NearDuplicate] = {}
    for training_row in train:
        text = shingles(training_row)
        distinctive = without(text, common)
        minhash.clear()
        minhash.update_batch(distinctive)
        for number in index.query(minhash):
            other = shingles(held_out[number])
            similarity = min(jaccard(text, other), jaccard(distinctive, without(other, common)))
            if similarity > threshold:
                leaks[number] = NearDuplicate(held_out[number], training_row, similarity)
                index.remove(number)  # so that many rows that are all alike are not compared with each other
    return [leaks[number] for number in sorted(leaks)]


def shingles(row: Row) -> Shingles:
    """The sequences of SHINGLE characters in a prompt; of a shorter one, its whole text."""
    text = MARKS.sub(" ", key(prompt_text(row))).strip().ljust(SHINGLE)
    characters = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    count = len(characters) - SHINGLE + 1
    hashes = np.zeros(count, np.uint64)
    for start in range(SHINGLE):
        hashes = hashes * np.uint64(BASE) + characters[start : start + count]
    return set((hashes >> np.uint64(32)).tolist())


def common_shingles(rows: list[Row]) -> Shingles:
    """The shingles that many of the rows contain, by a sample."""
    sample = rows[:: max(1, len(rows) // SAMPLE)]
    counts = Counter(shingle for row in sample for shingle in shingles(row))
    return {shingle for shingle, count in counts.items() if count > max(COMMON_ROWS, COMMON * len(sample))}


def without(own: Shingles, common: Shingles) -> Shingles:
    """What remains of a row's shingles without the common ones, or all of them if none remain."""
    return own - common or own


def jaccard(left: Shingles, right: Shingles) -> float:
    """The share of the shingles of either that both contain."""
    both = len(left & right)
    return both / (len(left) + len(right) - both)


def bands(threshold: float) -> tuple[int, int]:
    """The number of bands and the permutations in each: as many as RECALL allows, for the fewest pairs to compare."""

    def recall(size: int) -> float:
        return 1 - (1 - threshold**size) ** (PERMUTATIONS // size)

    size = max((size for size in range(1, PERMUTATIONS // 2 + 1) if recall(size) >= RECALL), default=1)
    return PERMUTATIONS // size, size
