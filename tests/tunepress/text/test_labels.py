"""Labels: what an answer names, whatever stands around it."""

import pytest

from tunepress.text.labels import INVALID, find_label, labels_problem

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
    assert find_label(answer, TONES) == label


@pytest.mark.parametrize("labels", [["very", "very sad", "very sad indeed"], ["very sad indeed", "very sad", "very"]])
def test_of_labels_that_begin_alike_the_longest_counts(labels: list[str]) -> None:
    for label in labels:
        assert find_label(f"{label.title()}!", labels) == label
    assert find_label("very sadly", labels) == "very"


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
        ("-1", ["1", "0"], INVALID),
        ("\u22121", ["1", "0"], INVALID),
        ("- 1", ["1", "0"], "1"),
        ("0.5", ["0", "1"], INVALID),
        ("0,5", ["0", "1"], INVALID),
        ("1.5", ["1", "5", "1.5"], "1.5"),
        ("1.55", ["1", "5", "1.5"], INVALID),
        (".5", ["5"], INVALID),
        ("1/2", ["1", "2"], INVALID),
        ("1-2", ["1", "2"], INVALID),
        ("10", ["1", "0"], INVALID),
        ("10", ["1", "10"], "10"),
        ("1, then 2", ["1", "2"], "1"),
        ("1.", ["1", "2"], "1"),
        ("(1)", ["1", "2"], "1"),
        ("5 stars", ["4", "5"], "5"),
        ("01", ["1", "01"], "01"),
        ("1", ["01", "02"], INVALID),
        ("v1.5", ["v1", "v2"], INVALID),
        ("not", ["no", "yes"], INVALID),
        ("No.", ["no", "yes"], "no"),
        ("can't", ["can", "may"], INVALID),
        ("can\u2019t", ["can", "may"], INVALID),
        ("'can'", ["can", "may"], "can"),
        ("(none)", ["(none)", "some"], "(none)"),
        ("yes|no", ["yes|no", "yes"], "yes|no"),
        ("no?", ["no", "no?"], "no?"),
        ("[x]", ["[x]", "[ ]"], "[x]"),
        ("★★★", ["★★", "★★★"], "★★★"),
    ],
)
def test_labels_of_any_characters_are_distinguished(answer: str, labels: list[str], label: str) -> None:
    assert find_label(answer, labels) == label


@pytest.mark.parametrize(
    ("answer", "labels"), [("\u0131rony", ["irony", "joy"]), ("\u0130yi", ["iyi"]), ("\ufb01ne", ["fine"]), ("\u017fad", ["sad"])]
)
def test_letters_with_odd_cases_break_nothing(answer: str, labels: list[str]) -> None:
    assert find_label(answer, labels) in {*labels, INVALID}


def test_a_label_keeps_its_own_spelling() -> None:
    assert find_label("größte freude", ["Größte Freude"]) == "Größte Freude"


@pytest.mark.parametrize(
    ("answer", "label"), [("US", "US"), ("us", "us"), ("us.", "us"), ("Us", INVALID), ("USA", INVALID), ("Them", "them")]
)
def test_labels_that_differ_in_case_only_are_matched_exactly(answer: str, label: str) -> None:
    for labels in (["US", "us", "them"], ["them", "us", "US"]):
        assert find_label(answer, labels) == label


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["joy", "fear", "joy"], "'joy' is in the list twice"),
        (["Caf\u00e9", "tea", "Cafe\u0301"], "is in the list twice, or twice in different Unicode forms"),
        (["joy", ""], "'' is empty or has white space around it"),
        (["joy", " "], "' ' is empty"),
        ([" joy", "fear"], "has white space around it"),
        (["joy", INVALID], "(invalid) is reserved for answers without a label"),
    ],
)
def test_labels_that_cannot_be_distinguished_are_rejected(labels: list[str], problem: str) -> None:
    message = labels_problem(labels)
    assert message is not None
    assert message.startswith("data.labels: ")
    assert problem in message


@pytest.mark.parametrize("labels", [[], TONES, ["US", "us"], ["1", "01", "-1", "1.0"], ["very", "very sad"]])
def test_labels_that_can_be_distinguished_are_accepted(labels: list[str]) -> None:
    assert labels_problem(labels) is None
