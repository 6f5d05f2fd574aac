"""A question to the model, and what is heard of it: the words between the HTTP process and the model's."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]  # length: max_new_tokens, or the room there was, ended the answer


@dataclass(frozen=True)
class Question:
    """One prompt.

    Attributes:
        prompt: text.
        param: of the request that it came in, for errors.
        max_new_tokens: the most to answer with.
        temperature: 0 for the likeliest token each time.
        top_p: share of probability to choose from.
        seed: of the choice; None for another one each time.
        stop: texts before which the answer ends.
        scored: completions whose probability behind the prompt is wanted.
        from_template: whether a chat template wrote the prompt, which may have written the first token (BOS) too.
    """

    prompt: str
    param: str
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    scored: tuple[str, ...] = ()
    from_template: bool = False


@dataclass(frozen=True)
class Stop:
    """To the model: nobody waits for the answer any more."""


@dataclass(frozen=True)
class Ready:
    """The model is loaded."""


@dataclass(frozen=True)
class Begun:
    """The prompt has been read; it is so many tokens."""

    prompt_tokens: int


@dataclass(frozen=True)
class Piece:
    """One more token, and the text that is certain by now, often none."""

    text: str


@dataclass(frozen=True)
class End:
    """The answer is complete.

    Attributes:
        text: what had been held back.
        finish_reason: what ended it.
        probabilities: of `Question.scored` among themselves.
    """

    text: str
    finish_reason: FinishReason
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Stopped:
    """The answer was given up as asked."""


@dataclass(frozen=True)
class Refused:
    """The question cannot be asked, or, without a `param`, the model failed at it."""

    reason: str
    param: str | None
    code: str | None


Heard = Ready | Begun | Piece | End | Stopped | Refused
