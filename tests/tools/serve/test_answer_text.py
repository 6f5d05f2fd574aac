"""The text of an answer while it is written: nothing is given out that a later token could change."""

import pytest

from tools.serve.answer_text import AnswerText


def of_bytes(tokens: list[int]) -> str:
    """A tokenizer whose tokens are bytes."""
    return bytes(tokens).decode(errors="replace")


def pieces(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """What is given out byte for byte and in the end, and whether a stop text came."""
    answer, given = AnswerText(of_bytes, stop), []
    for token in text.encode():
        given.append(answer.add(token))
        if answer.stopped:
            break
    return [*given, answer.rest()], answer.stopped


@pytest.mark.parametrize("text", ["plain", "Ça va? 🎉 雨", "", "ends in \ufffd"])
def test_the_pieces_are_the_text(text: str) -> None:
    given, stopped = pieces(text)
    assert "".join(given) == text
    assert not stopped


def test_a_character_of_several_tokens_is_given_out_whole() -> None:
    assert pieces("a🎉b") == (["a", "", "", "", "🎉", "b", ""], False)


def test_an_unfinished_character_at_the_end_is_given_out_as_the_tokenizer_has_it() -> None:
    answer = AnswerText(of_bytes, ())
    assert [answer.add(token) for token in "a🎉".encode()[:3]] == ["a", "", ""]
    assert answer.rest() == "\ufffd"


def test_what_a_stop_text_may_begin_with_is_held_back() -> None:
    assert pieces("a---b--", ("--b",)) == (["a", "", "", "-", "", ""], True)
    assert pieces("a--", ("--b",)) == (["a", "", "", "--"], False)


@pytest.mark.parametrize(
    ("stop", "left"),
    [(("lo",), "hel"), (("o", "l"), "he"), (("hello",), ""), (("x", "ld"), "hello wor"), (("hellO",), "hello world")],
)
def test_the_text_ends_before_the_first_stop_text(stop: tuple[str, ...], left: str) -> None:
    given, stopped = pieces("hello world", stop)
    assert "".join(given) == left
    assert stopped == (left != "hello world")
