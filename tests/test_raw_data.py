"""The rows that come with the project: distinct phrases in balance."""

import itertools
import json
import re
from collections import Counter
from pathlib import Path


def test_the_phrases_are_many_distinct_and_in_balance(root: Path) -> None:
    rows = [json.loads(line) for line in (root / "data/raw/tone.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(row.keys() == {"phrase", "tone"} for row in rows)
    tones = Counter(row["tone"] for row in rows)
    assert sorted(tones) == ["fear", "joy", "sadness", "surprise"]
    assert len(rows) >= 800
    assert max(tones.values()) == min(tones.values())


def test_no_two_phrases_share_more_than_half_of_their_words(root: Path) -> None:
    rows = [json.loads(line) for line in (root / "data/raw/tone.jsonl").read_text(encoding="utf-8").splitlines()]
    words = [(row["phrase"], frozenset(re.findall(r"[a-z']+", row["phrase"].lower()))) for row in rows]
    alike = [
        (phrase, other)
        for (phrase, first), (other, second) in itertools.combinations(words, 2)
        if len(first & second) > 0.5 * len(first | second)
    ]
    assert not alike
