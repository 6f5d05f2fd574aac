"""Labels: what an answer names, whatever stands around it."""

import pytest

from stages.lib.labels import INVALID, label_of

TONES = ["joy", "sadness", "fear"]


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("joy", "joy"),
        ("Joy.", "joy"),
        (" SADNESS\n", "sadness"),
        ("**fear**", "fear"),
        ('"Fear", I think', "fear"),
        ("joy-filled", "joy"),
        ("joy\nsadness", "joy"),
        ("joyful", INVALID),
        ("joy_2", INVALID),
        ("enjoy", INVALID),
        ("The tone is joy", INVALID),
        ("jo", INVALID),
        ("", INVALID),
        (" \n...", INVALID),
    ],
)
def test_a_label_is_the_first_whole_word_whatever_its_case(answer: str, label: str) -> None:
    assert label_of(answer, TONES) == label


@pytest.mark.parametrize("labels", [["very", "very sad", "very sad indeed"], ["very sad indeed", "very sad", "very"]])
def test_of_labels_that_begin_alike_the_longest_counts(labels: list[str]) -> None:
    for label in labels:
        assert label_of(f"{label.title()}!", labels) == label
    assert label_of("very sadly", labels) == "very"


@pytest.mark.parametrize(
    ("answer", "labels", "label"),
    [
        ("a.b", ["a.b"], "a.b"),
        ("axb", ["a.b"], INVALID),
        ("c++", ["c", "c++"], "c++"),
        ("C++ it is", ["c", "c++"], "c++"),
        ("C.", ["c", "c++"], "c"),
        ("-1", ["1", "-1"], "-1"),
        (" 1", ["1", "-1"], "1"),
        ("(none)", ["(none)", "some"], "(none)"),
        ("yes|no", ["yes|no", "yes"], "yes|no"),
        ("no?", ["no", "no?"], "no?"),
        ("[x]", ["[x]", "[ ]"], "[x]"),
        ("★★★", ["★★", "★★★"], "★★★"),
    ],
)
def test_labels_of_any_characters_are_told_apart(answer: str, labels: list[str], label: str) -> None:
    assert label_of(answer, labels) == label


@pytest.mark.parametrize(
    ("answer", "labels"), [("\u0131rony", ["irony", "joy"]), ("\u0130yi", ["iyi"]), ("\ufb01ne", ["fine"]), ("\u017fad", ["sad"])]
)
def test_letters_with_odd_cases_break_nothing(answer: str, labels: list[str]) -> None:
    assert label_of(answer, labels) in {*labels, INVALID}


def test_a_label_keeps_its_own_spelling() -> None:
    assert label_of("größte freude", ["Größte Freude"]) == "Größte Freude"
