"""The split: every conflict is reported, and the places of rows are those of every earlier version."""

from stages.prepare.split import deduplicate, overlap, split
from tests.stages.prepare.test_split import row
from tunepress.text.segments import prompt_text


def test_every_contradicted_prompt_is_reported_and_every_duplicate() -> None:
    left = deduplicate(
        [row("a", "joy"), row("b", "joy"), row("A", "fear"), row("c"), row("C"), row("B", "fear"), row("d"), row("D")],
        labels=True,
    )
    assert left.rows == [row("c"), row("d")]
    assert left.duplicates == [row("C"), row("D")]
    assert left.conflicts == [row("a", "joy"), row("A", "fear"), row("b", "joy"), row("B", "fear")]


def test_a_split_is_the_same_on_every_machine_and_in_every_version() -> None:
    """Only a change that is meant to move rows may change these places: it moves those of every user's data too."""
    splits = split([row(f"One  Word {number}") for number in range(10)], True, 0.2, 0.3, 0)
    assert {name: [prompt_text(row)[-1] for row in members] for name, members in splits.items()} == {
        "train": ["2", "3", "4", "5", "8"],
        "validation": ["0", "1", "6"],
        "test": ["7", "9"],
    }


def test_overlap_is_between_splits_and_not_within_one() -> None:
    assert overlap({"train": [row("a"), row("A")], "test": [row("b"), row("B")]}) == []
    assert overlap({"train": [row("a")], "validation": [row("b")], "test": [row("A"), row("a"), row("b")]}) == [
        row("A"),
        row("a"),
        row("b"),
    ]
