"""near_duplicates: what it finds is what comparing all pairs finds, and text that many rows have in common does not count."""

import random
from typing import Any
from unittest.mock import Mock

import pytest

from stages.prepare import near_duplicates as module
from stages.prepare.near_duplicates import (
    REPORTED,
    bands,
    common_shingles,
    drop_near_duplicates,
    jaccard,
    near_duplicates,
    shingles,
    without,
)
from tests.stages.prepare.test_split import conversation, row
from tunepress.core.errors import InputError
from tunepress.text.segments import prompt_text

Row = dict[str, Any]
RANDOM = random.Random(0)
WORDS = ["".join(RANDOM.choices("abcdefghijklmnopqrstuvwxyz", k=RANDOM.randint(2, 9))) for _ in range(2000)]


def sentence(words: int = 12) -> list[str]:
    return RANDOM.choices(WORDS, k=words)


def edited(words: list[str], changes: int) -> list[str]:
    """The words with some of them replaced."""
    places = RANDOM.sample(range(len(words)), changes)
    return [RANDOM.choice(WORDS) if place in places else word for place, word in enumerate(words)]


def templated(words: list[str] | str) -> Row:
    text = words if isinstance(words, str) else " ".join(words)
    return row(f"### Text: {text}\n### The tone is:\n")


TRAIN = [sentence(12) for _ in range(200)]
NOISE = [templated(words) for words in TRAIN]


def pairs(held_out: list[Row], train: list[Row]) -> dict[str, float]:
    """The highest similarity of each held-out prompt, from all pairs."""
    common = common_shingles(train)
    texts = [(own := shingles(member), without(own, common)) for member in train]
    best = {}
    for member in held_out:
        own = shingles(member)
        rest = without(own, common)
        best[prompt_text(member)] = max(min(jaccard(own, text), jaccard(rest, other)) for text, other in texts)
    return best


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_it_finds_what_comparing_all_pairs_finds(threshold: float) -> None:
    held_out = [templated(edited(words, changes)) for changes in (0, 1, 2, 3, 5) for words in RANDOM.sample(TRAIN, 40)]
    best = pairs(held_out, NOISE)
    similarities = {prompt_text(leak.row): leak.similarity for leak in near_duplicates(held_out, NOISE, threshold)}
    assert all(threshold < similarity <= best[prompt] for prompt, similarity in similarities.items())
    expected = {prompt for prompt, similarity in best.items() if similarity > threshold}
    assert len(expected) >= 40
    assert len(similarities) >= 0.98 * len(expected)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99])
def test_the_bands_reach_their_recall(threshold: float) -> None:
    count, size = bands(threshold)
    assert count >= 2
    assert count * size <= 64
    if threshold >= 0.3:
        assert 1 - (1 - threshold**size) ** count >= 0.98


def test_a_leak_names_the_first_training_row_that_is_too_similar() -> None:
    words = sentence()
    similar, first, second = (templated([*words[: 12 - changes], *sentence(changes)]) for changes in (7, 2, 1))
    (leak,) = near_duplicates([templated(sentence()), templated(words)], [*NOISE, similar, first, second], 0.5)
    assert (leak.row, leak.training_row) == (templated(words), first)


def test_rows_that_are_all_alike_take_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    compare = Mock(wraps=jaccard)
    monkeypatch.setattr(module, "jaccard", compare)
    alike = [templated([*TRAIN[0], f"{number}"]) for number in range(20)]
    assert len(near_duplicates(alike[:10], [*NOISE, *alike[10:]], 0.5)) == 10
    assert compare.call_count == 2 * 10


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("This is scary!", "this is  scary."),
        ("I\u2019m so nervous", "I'm so nervous!"),
        ("What a day; really", "WHAT A DAY…\nreally?"),
        ("如果明天下雨,我们就不去公园散步了", "如果明天下雨\uff0c我们就不去公园散步了。"),
    ],
)
def test_marks_case_and_white_space_make_no_difference(text: str, other: str) -> None:
    assert [leak.row for leak in near_duplicates([templated(text)], [*NOISE, templated(other)], 0.7)] == [templated(text)]


@pytest.mark.parametrize(
    ("text", "other"),
    [("1 + 2 =", "1 - 2 ="), ("2² = ?", "22 = ?"), ("3.5 + 1", "35 + 1"), ("no", "yes"), ("a<b", "a>b"), ("", "a")],
)
def test_short_texts_that_differ_are_told_apart(text: str, other: str) -> None:
    assert near_duplicates([templated(text)], [*NOISE, templated(other)], 0.8) == []
    assert near_duplicates([row(text)], [row(other)], 0.8) == []


def test_a_similarity_that_is_just_the_threshold_is_not_above_it() -> None:
    train, held_out = [row("abcdefgh")], [row("abcdefghi")]  # 4 of 5 shingles
    assert near_duplicates(held_out, train, 0.8) == []
    assert [leak.similarity for leak in near_duplicates(held_out, train, 0.79)] == [0.8]


def test_a_long_template_makes_no_rows_similar() -> None:
    rules = " ".join(sentence(200))
    systems = [f"<|system|>\n{rules} {name}<|end|>\n<|user|>\n" for name in ("Be brief.", "Be kind.", " ".join(sentence(40)))]
    train = [row(systems[number % 3] + " ".join(words) + "<|end|>\n<|assistant|>\n") for number, words in enumerate(TRAIN)]
    held_out = [row(systems[number % 3] + " ".join(sentence()) + "<|end|>\n<|assistant|>\n") for number in range(10)]
    assert min(pairs_with_template(held_out, train)) > 0.8
    assert near_duplicates(held_out, train, 0.5) == []
    leak = row(systems[0] + " ".join([*TRAIN[7], "now"]) + "<|end|>\n<|assistant|>\n")
    assert [near.row for near in near_duplicates([*held_out, leak], train, 0.8)] == [leak]


def pairs_with_template(held_out: list[Row], train: list[Row]) -> list[float]:
    texts = [shingles(member) for member in train]
    return [max(jaccard(shingles(member), text) for text in texts) for member in held_out]


def test_rows_that_differ_only_in_common_text_are_told_apart() -> None:
    languages = ["French", "German", "Dutch"]
    train = [row(f"Translate to {languages[number % 2]}: {' '.join(words)}") for number, words in enumerate(TRAIN)]
    train += [row(f"Translate to Dutch: {' '.join(sentence())}") for _ in range(200)]
    word = sentence(1)[0]
    assert near_duplicates([row(f"Translate to French: {word}")], [*train, row(f"Translate to German: {word}")], 0.8) == []


def test_rows_of_common_text_only_are_compared_as_a_whole() -> None:
    train = [row("This is a text that all rows have in common.")] * 50
    assert len(near_duplicates(train[:1], train, 0.8)) == 1
    assert near_duplicates([row("This is a text")], train, 0.8) == []


def test_conversations_are_compared_by_what_is_before_the_first_answer() -> None:
    words = sentence()
    train = [*NOISE, conversation(" ".join(words), "yes", "and now?", "no")]
    (leak,) = near_duplicates([conversation(" ".join(words) + "?", "something else entirely")], train, 0.8)
    assert leak.training_row == train[-1]


def leaking(count: int, name: str) -> list[Row]:
    return [{**templated([*words, "now"]), "source": f"{name} row {n}"} for n, words in enumerate(TRAIN[:count], start=1)]


def test_dropped_rows_are_counted_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    kept = {name: [templated(sentence())] for name in ("validation", "test")}
    splits = {
        "train": list(NOISE),
        "validation": [*kept["validation"], *leaking(4, "validation")],
        "test": [*leaking(20, "test"), *kept["test"]],
    }
    assert drop_near_duplicates(splits, 0.8) == 24
    assert splits == {"train": NOISE, **kept}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == REPORTED + 1
    assert lines[0].startswith("prepare: validation row 1: dropped as a near duplicate of rows (similarity 0.8")
    assert lines[-1] == "prepare: 14 more rows are dropped as near duplicates of training rows"


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_split_that_loses_all_rows_is_an_error(name: str) -> None:
    splits = {"train": NOISE, "validation": [templated(sentence())], "test": [templated(sentence())], name: leaking(3, name)}
    with pytest.raises(InputError, match=rf"^data\.near_duplicates: no {name} rows are left; all have a similarity above 0\.8 "):
        drop_near_duplicates(splits, 0.8)


def test_a_split_that_is_empty_stays_so() -> None:
    splits: dict[str, list[Row]] = {"train": NOISE, "validation": [], "test": [templated(sentence())]}
    assert drop_near_duplicates(splits, 0.8) == 0
