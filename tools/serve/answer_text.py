"""The text of an answer while it is written: what of it is certain, and where a stop text ends it."""

from collections.abc import Callable, Sequence

UNFINISHED = "\ufffd"  # what a tokenizer makes of the first bytes of a character


class AnswerText:
    """Grows token by token. All that it gave out, joined, is what the tokenizer makes of all tokens at once."""

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str]) -> None:
        """An empty text.

        Args:
            decode: the text of tokens.
            stop: texts before which it ends.
        """
        self._decode, self._stop = decode, stop
        self._tokens: list[int] = []
        self._text = ""
        self._given = 0
        self.stopped = False  # whether one of the stop texts came

    def add(self, token: int) -> str:
        """Takes a token; gives what text has become certain."""
        self._tokens.append(token)
        self._text = self._decode(self._tokens)
        found = [place for place in (self._text.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self._text, self.stopped = self._text[: min(found)], True
            return ""
        return self._give(len(self._text.rstrip(UNFINISHED)) - self._held_back())

    def rest(self) -> str:
        """What text is left when no token follows."""
        return self._give(len(self._text))

    def _held_back(self) -> int:
        """Characters at the end with which a stop text may begin."""
        text = self._text.rstrip(UNFINISHED)
        lengths = (length for stop in self._stop for length in range(1, len(stop)) if text.endswith(stop[:length]))
        return max(lengths, default=0)

    def _give(self, end: int) -> str:
        given, self._given = self._text[self._given : end], max(self._given, end)
        return given
