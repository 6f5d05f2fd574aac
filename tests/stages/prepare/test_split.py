"""The split: nothing twice, nothing contradicted, stable under new rows."""

import random
from collections import Counter
from typing import Any

import pytest

from stages.prepare.split import cap, deduplicate, overlap, split
from tunepress.core.errors import InputError
from tunepress.text.segments import answer, context, learned, prompt_text

Row = dict[str, Any]


def row(prompt: str, expected: str = "joy") -> Row:
    return {"source": "rows", "segments": [context(prompt), learned(expected, expected)]}


def conversation(*texts: str) -> Row:
    """A row of the texts of user and assistant in turns."""
    return {"source": "rows", "segments": [learned(text, text) if n % 2 else context(text) for n, text in enumerate(texts)]}


def rows(**sizes: int) -> list[Row]:
    return [row(f"{label} {number}", label) for label, size in sizes.items() for number in range(size)]


def places(splits: dict[str, list[Row]]) -> dict[str, str]:
    return {prompt_text(row): name for name, members in splits.items() for row in members}


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Caf\u00e9", "Cafe\u0301"),
        ("STRASSE", "straße"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("\u1fb3\u0301", "\u03b1\u0301\u0345"),  # canonically equal: alpha with an accent and a iota below
    ],
)
@pytest.mark.parametrize("labels", [True, False])
def test_texts_that_differ_in_form_or_case_are_one_prompt(text: str, other: str, labels: bool) -> None:
    left = deduplicate([row(text), row("else"), row(other)], labels)
    assert left.rows == [row(text), row("else")]
    assert left.duplicates == [row(other)]
    assert left.conflicts == []


LIKE = [  # different prompts that are always in the same split
    ("What  a\tday\n", " What a day"),
    ("\uff46", "f"),
    ("\uff11\uff12", "12"),
    ("no\u00a0break", "no break"),
    ("2² = ?", "22 = ?"),
    ("if a:\n    b()\nc()", "if a:\n    b()\n    c()"),
]


@pytest.mark.parametrize(("text", "other"), [("it's", "its"), ("a b", "ab"), ("resume", "résumé"), ("no!", "no?"), *LIKE])
def test_texts_that_differ_in_more_than_form_and_case_are_two_prompts(text: str, other: str) -> None:
    for labels in (True, False):
        left = deduplicate([row(text), row(other, "fear")], labels)
        assert (left.rows, left.conflicts) == ([row(text), row(other, "fear")], [])


def test_no_row_of_a_contradicted_prompt_is_kept() -> None:
    contradicted = [row("Oh no", "joy"), row("oh NO", "joy"), row("OH NO", "fear")]
    left = deduplicate([contradicted[0], row("a"), *contradicted[1:], row("A")], labels=True)
    assert left.rows == [row("a")]
    assert left.duplicates == [row("A")]
    assert left.conflicts == contradicted


def test_answers_that_differ_in_case_only_are_no_contradiction() -> None:
    assert deduplicate([row("a", "Joy"), row("a", " joy ")]).conflicts == []


def test_labels_that_differ_in_case_only_contradict_each_other() -> None:
    contradicted = [row("a", "US"), row("A", "us")]
    assert deduplicate([*contradicted, row("b", "us")], labels=True).conflicts == contradicted


def test_every_label_gets_the_same_shares() -> None:
    splits = split(rows(joy=100, fear=40), True, 0.25, 0.1, 0)
    actual = {
        name: [sum(answer(row) == label for row in members) for label in ("joy", "fear")] for name, members in splits.items()
    }
    assert actual == {"train": [65, 26], "validation": [10, 4], "test": [25, 10]}


def test_every_row_has_one_place_and_its_order() -> None:
    inputs = rows(joy=37, fear=23, sadness=11)
    splits = split(list(inputs), True, 0.2, 0.15, 3)
    assert list(splits) == ["train", "validation", "test"]
    assert sorted(places(splits)) == sorted(map(prompt_text, inputs))
    for members in splits.values():
        assert members == [row for row in inputs if row in members]


def test_free_answers_are_split_as_one() -> None:
    splits = split([row(f"question {number}", f"answer {number}") for number in range(20)], False, 0.25, 0.1, 0)
    assert {name: len(members) for name, members in splits.items()} == {"train": 13, "validation": 2, "test": 5}


def test_a_seed_gives_one_split_and_another_seed_another() -> None:
    inputs = rows(joy=100, fear=100)
    first, again, other = (places(split(inputs, True, 0.25, 0.1, seed)) for seed in (0, 0, 1))
    assert first == again
    moved = sum(first[prompt] != other[prompt] for prompt in first)
    assert 0.25 < moved / len(first) < 0.75  # 0.505 is expected: 1 - 0.65² - 0.1² - 0.25²


def test_the_order_of_the_rows_moves_none() -> None:
    inputs = rows(joy=60, fear=50)
    shuffled = random.Random(5).sample(inputs, len(inputs))
    assert places(split(inputs, True, 0.2, 0.1, 0)) == places(split(shuffled, True, 0.2, 0.1, 0))


def test_rows_that_dedupe_alike_get_the_same_place() -> None:
    spelled = [row(f"  {prompt_text(member).upper()}", answer(member)) for member in rows(joy=60)]
    first, second = places(split(rows(joy=60), True, 0.2, 0.1, 0)), places(split(spelled, True, 0.2, 0.1, 0))
    assert first == {prompt.strip().lower(): name for prompt, name in second.items()}


@pytest.mark.parametrize("stratify", [True, False])
def test_an_added_row_moves_at_most_three_others_and_only_of_its_label(stratify: bool) -> None:
    for size in range(20, 60):
        inputs = rows(joy=size, fear=31)
        before = places(split(inputs, stratify, 0.25, 0.1, 0))
        after = places(split([row("a new one"), *inputs], stratify, 0.25, 0.1, 0))
        moved = [prompt for prompt, name in before.items() if after[prompt] != name]
        assert len(moved) <= 3
        if stratify:
            assert all(prompt.startswith("joy") for prompt in moved)


@pytest.mark.parametrize(
    ("test_size", "eval_dataset_size", "sizes"),
    [(0.0, 0.1, [18, 2, 0]), (0.25, 0.0, [15, 0, 5]), (0.0, 0.0, [20, 0, 0])],
)
def test_a_share_of_zero_is_an_empty_split(test_size: float, eval_dataset_size: float, sizes: list[int]) -> None:
    splits = split(rows(joy=20), True, test_size, eval_dataset_size, 0)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == sizes


@pytest.mark.parametrize(
    ("sizes", "test_size", "eval_dataset_size", "name"),
    [
        ({"joy": 100, "fear": 1}, 0.25, 0.1, "test"),
        ({"joy": 100, "fear": 4}, 0.25, 0.1, "validation"),
        ({"joy": 100, "fear": 2}, 0.5, 0.49, "train"),
    ],
)
def test_too_few_rows_are_told_with_their_number_label_and_split(
    sizes: dict[str, int], test_size: float, eval_dataset_size: float, name: str
) -> None:
    complaint = rf"^data: {sizes['fear']} distinct prompts of label 'fear' are too few for a {name} split"
    with pytest.raises(InputError, match=complaint):
        split(rows(**sizes), True, test_size, eval_dataset_size, 0)


def test_too_few_rows_of_free_text_are_told_without_a_label() -> None:
    with pytest.raises(InputError, match=r"^data: 2 distinct prompts are too few for a validation split"):
        split(rows(joy=2), False, 0.5, 0.1, 0)


@pytest.mark.parametrize("share", [-0.1, 1.0, 25.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["test_size", "eval_dataset_size"])
def test_a_share_out_of_range_is_named(name: str, share: float) -> None:
    shares = {"test_size": 0.1, "eval_dataset_size": 0.1, name: share}
    with pytest.raises(InputError, match=rf"^data\.{name}: "):
        split(rows(joy=100), True, **shares, seed=0)


@pytest.mark.parametrize(("test_size", "eval_dataset_size"), [(0.5, 0.5), (0.9, 0.2)])
def test_shares_that_leave_nothing_to_train_on_are_named(test_size: float, eval_dataset_size: float) -> None:
    with pytest.raises(InputError, match=r"^data\.test_size \+ data\.eval_dataset_size: .* no training rows"):
        split(rows(joy=100), True, test_size, eval_dataset_size, 0)


def test_overlap_finds_the_later_of_two_like_prompts() -> None:
    splits = {"train": [row("a"), row("é")], "validation": [row("c"), row("É")], "test": [row("e\u0301"), row("d")]}
    assert overlap(splits) == [row("É"), row("e\u0301")]


def test_overlap_finds_nothing_in_rows_that_were_deduplicated_and_split() -> None:
    assert overlap(split(rows(joy=50, fear=50), True, 0.25, 0.1, 0)) == []


def counts(members: list[Row]) -> dict[str, int]:
    return dict(Counter(map(answer, members)))


def test_a_cap_keeps_the_order_and_the_shares_of_the_labels() -> None:
    inputs = rows(joy=100, fear=40, rage=1)
    kept = cap(inputs, 29, "max_test_samples", True, 0)
    assert kept == [row for row in inputs if row in kept]
    assert counts(kept) == {"joy": 20, "fear": 8, "rage": 1}
    assert counts(cap(inputs, 3, "max_test_samples", True, 0)) == {"joy": 1, "fear": 1, "rage": 1}
    assert len(cap(inputs, 29, "max_test_samples", False, 0)) == 29


def test_a_cap_takes_the_same_rows_whatever_their_order_and_a_smaller_one_some_of_them() -> None:
    inputs = rows(joy=60, fear=50)
    shuffled = random.Random(5).sample(inputs, len(inputs))
    kept = [
        {prompt_text(row) for row in cap(members, most, "max_test_samples", True, seed)}
        for members, most, seed in ((inputs, 30, 0), (shuffled, 30, 0), (inputs, 20, 0), (inputs, 30, 1))
    ]
    assert kept[0] == kept[1] > kept[2]
    assert kept[0] != kept[3]
    assert kept[0] != {prompt_text(row) for row in inputs[:30]}


@pytest.mark.parametrize("most", [None, 11, 1000])
def test_a_cap_above_the_rows_cuts_none(most: int | None) -> None:
    inputs = rows(joy=6, fear=5)
    assert cap(inputs, most, "max_test_samples", True, 0) == inputs


@pytest.mark.parametrize(("stratify", "most", "least"), [(True, 1, 2), (True, 0, 2), (False, 0, 1), (False, -5, 1)])
def test_a_cap_below_a_row_of_each_label_is_refused(stratify: bool, most: int, least: int) -> None:
    with pytest.raises(InputError, match=rf"^data\.max_test_samples: must be at least {least}\b.*, got {most}$"):
        cap(rows(joy=6, fear=5), most, "max_test_samples", stratify, 0)
