"""The split of rows with several answers to a prompt, of prompts that look alike, and of conversations."""

import random
import tracemalloc
from typing import Any

import pytest

from stages.prepare.split import cap, deduplicate, overlap, split
from tests.stages.prepare.test_split import LIKE, conversation, row
from tunepress.text.segments import answer, prompt_text

Row = dict[str, Any]


def questions(count: int, answers: int = 2) -> list[Row]:
    """Rows in which the answers to a prompt are far from each other."""
    return [row(f"question {number}", f"answer {n}") for n in range(answers) for number in range(count)]


def splits_of(splits: dict[str, list[Row]], prompt: str) -> set[str]:
    return {name for name, rows in splits.items() for row in rows if prompt_text(row) == prompt}


def test_all_answers_to_a_prompt_are_kept() -> None:
    inputs = questions(20)
    left = deduplicate(inputs)
    assert (left.rows, left.duplicates, left.conflicts) == (inputs, [], [])


@pytest.mark.parametrize("seed", range(3))
def test_all_answers_to_a_prompt_are_in_the_same_split(seed: int) -> None:
    splits = split(questions(20), False, 0.2, 0.1, seed)
    assert {name: len(members) for name, members in splits.items()} == {"train": 28, "validation": 4, "test": 8}
    assert all(len(splits_of(splits, f"question {number}")) == 1 for number in range(20))
    assert overlap(splits) == []


def test_answers_in_addition_move_no_row() -> None:
    before, after = split(questions(20, 1), False, 0.2, 0.1, 0), split(questions(20, 5), False, 0.2, 0.1, 0)
    assert all(splits_of(before, f"question {number}") == splits_of(after, f"question {number}") for number in range(20))


def test_a_prompt_with_the_same_answer_is_a_duplicate() -> None:
    left = deduplicate([row("a", "x"), row("a", "y"), row("A", "x"), row("a", "caf\u00e9"), row("a", "cafe\u0301")])
    assert left.rows == [row("a", "x"), row("a", "y"), row("a", "caf\u00e9")]
    assert left.duplicates == [row("A", "x"), row("a", "cafe\u0301")]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (row("2² = ?", "4"), row("22 = ?", "22")),
        (row("Is US a pronoun?", "no"), row("Is us a pronoun?", "yes")),
        (row("print(X)", "X"), row("print(x)", "x")),
        (row("if a:\n    b()\nc()", "two"), row("if a:\n    b()\n    c()", "one")),
        (row("a", "x"), row("a", "X")),
        (row("a", "x y"), row("a", "x  y")),
        (row("a", "2²"), row("a", "22")),
    ],
)
def test_free_text_that_differs_is_told_apart(left: Row, right: Row) -> None:
    assert deduplicate([left, right]).rows == [left, right]


@pytest.mark.parametrize("labels", [True, False])
def test_prompts_that_look_alike_are_in_the_same_split(labels: bool) -> None:
    for number in range(40):
        texts = [f"{number} {text}" for text in LIKE[number % len(LIKE)]]
        inputs = [row(f"{n}", f"{n % 2}") for n in range(40)] + [row(texts[0], "0"), row(texts[1], "1")]
        splits = split(inputs, labels, 0.3, 0.2, number)
        assert splits_of(splits, texts[0]) == splits_of(splits, texts[1])
        assert sum(map(len, splits.values())) == len(inputs)


def test_prompts_that_look_alike_are_placed_the_same_whatever_the_order() -> None:
    inputs = [row(text, f"{n}") for pair in LIKE for n, text in enumerate(pair)] + [row(f"{n}", f"{n % 2}") for n in range(40)]
    shuffled = random.Random(1).sample(inputs, len(inputs))
    first, second = split(inputs, True, 0.3, 0.2, 0), split(shuffled, True, 0.3, 0.2, 0)
    assert all(splits_of(first, prompt_text(member)) == splits_of(second, prompt_text(member)) for member in inputs)


def test_conversations_are_compared_by_what_is_before_the_first_answer() -> None:
    inputs = [conversation("Hi", "Hello!", "Help me", "How?"), conversation("hi", "Yes?"), conversation("Bye", "Bye!")]
    assert deduplicate(inputs).rows == inputs
    assert overlap({"train": inputs[:1], "test": inputs[1:]}) == [inputs[1]]
    for seed in range(5):
        splits = split([*inputs, *questions(20, 1)], False, 0.3, 0.2, seed)
        assert splits_of(splits, "Hi") == splits_of(splits, "hi")


def test_conversations_with_the_same_answers_to_other_questions_are_not_duplicates() -> None:
    inputs = [conversation("Hi", "OK", "Do this", "OK"), conversation("Hi", "OK", "Do that", "OK")]
    for labels in (True, False):
        assert deduplicate(inputs, labels).rows == inputs
        assert deduplicate([*inputs, inputs[0]], labels).duplicates == [inputs[0]]


def test_labels_of_later_turns_are_no_conflict() -> None:
    agreeing = [
        conversation("a", "joy", "b", "fear"),
        conversation("a", "joy", "c", "joy"),
        conversation("d", "fear", "e", "joy"),
    ]
    assert deduplicate(agreeing, labels=True).rows == agreeing
    contradicted = [agreeing[0], conversation("A", "fear", "b", "fear")]
    assert deduplicate(contradicted, labels=True).conflicts == contradicted


def test_a_cap_takes_the_same_answers_whatever_the_order_of_the_rows() -> None:
    inputs = questions(20, 3)
    shuffled = random.Random(5).sample(inputs, len(inputs))
    kept = [
        {(prompt_text(member), answer(member)) for member in cap(members, most, "max_test_samples", False, 0)}
        for members, most in ((inputs, 20), (shuffled, 20), (inputs, 10))
    ]
    assert (len(kept[0]), len(kept[2])) == (20, 10)
    assert kept[0] == kept[1] > kept[2]


def test_only_hashes_of_the_texts_are_kept() -> None:
    inputs = [row(f"{number} " + "word " * 400, f"{number % 4}") for number in range(1000)]  # of 2,000 characters each
    tracemalloc.start()
    splits = split(deduplicate(inputs).rows, False, 0.2, 0.1, 0)
    overlap({name: cap(rows, 100, "max_test_samples", False, 0) for name, rows in splits.items()})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / len(inputs) < 400
