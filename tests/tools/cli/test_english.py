"""The word list of `make lint`: what it finds, and where it looks."""

from pathlib import Path

import pytest

from tools.cli import english


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("0 is no rank", "is no rank"),
        ("the files are none of ours", "are none of"),
        ("mend the URL", "mend"),
        ("it wants a GPU", "wants"),
        ("the value stands in the file", "stands in"),
        ("the blob lies beside it", "lies beside"),
        ("accuracy, else exact match", ", else"),
        ("all files, but for these", "but for"),
    ],
)
def test_a_phrase_of_the_list_is_found(text: str, phrase: str) -> None:
    assert [match for _, match, _ in english.check(text, ".md")] == [phrase]


@pytest.mark.parametrize(
    "text",
    [
        "there is no GPU",
        "it is no longer needed",
        "there are no rows in it",
        "she wanted it",
        "an amendment",
        "if a: b, else if c: d",
        "the same to the bit",
    ],
)
def test_plain_english_passes(text: str) -> None:
    assert not list(english.check(text, ".md"))


def test_python_is_read_in_comments_and_strings_and_nowhere_else() -> None:
    source = '''wants = lies_in = 1
text = f"{wants} wants"
"""One.

It lies in the folder.
"""
# is no code
'''
    assert [(line, phrase) for line, phrase, _ in english.check(source, ".py")] == [
        (2, "wants"),
        (2, "wants"),
        (5, "lies in"),
        (7, "is no code"),
    ]


def test_generated_parts_are_left_to_their_sources() -> None:
    page = "a\n<!-- generated: messages -->\nit wants\n<!-- end -->\nit wants\n"
    assert [line for line, _, _ in english.check(page, ".md")] == [5]


def test_a_variable_is_named_after_what_it_holds() -> None:
    source = "found = 1\nfor said in (found,):\n    print(said)\ndef given(wanted): ...\n"
    assert [(line, name) for line, name, _ in english.check(source, ".py")] == [(1, "found"), (2, "said"), (4, "wanted")]


def test_other_files_are_read_in_comments() -> None:
    assert [(line, phrase) for line, phrase, _ in english.check("a: wants\nb: 1 # wants 2\n", ".yaml")] == [(2, "wants")]


def test_the_files_of_the_project_are_clean(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    english.main()
