"""The text of an answer, token by token: a piece is never changed by a later token."""

import pytest

from tools.serve.workers.served_model import AnswerText


def of_bytes(tokens: list[int]) -> str:
    """A tokenizer whose tokens are bytes."""
    return bytes(tokens).decode(errors="replace")


def pieces(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """The pieces for each byte and the rest, and whether a stop text was reached."""
    answer, texts = AnswerText(of_bytes, stop), []
    for token in text.encode():
        texts.append(answer.add(token))
        if answer.stopped:
            break
    return [*texts, answer.rest()], answer.stopped


@pytest.mark.parametrize("text", ["plain", "Ça va? 🎉 雨", "", "ends in \ufffd"])
def test_the_pieces_are_the_text(text: str) -> None:
    texts, stopped = pieces(text)
    assert "".join(texts) == text
    assert not stopped


def test_a_character_of_several_tokens_is_returned_whole() -> None:
    assert pieces("a🎉b") == (["a", "", "", "", "🎉", "b", ""], False)


def test_a_token_begins_where_the_complete_characters_end() -> None:
    answer, places = AnswerText(of_bytes, ()), []
    for token in "a🎉b".encode():
        places.append(answer.complete)
        answer.add(token)
    assert places == [0, 1, 1, 1, 1, 2]


def test_an_unfinished_character_at_the_end_is_returned_as_the_tokenizer_decodes_it() -> None:
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
    texts, stopped = pieces("hello world", stop)
    assert "".join(texts) == left
    assert stopped == (left != "hello world")
