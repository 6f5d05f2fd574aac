"""Messages between the HTTP process and the model process: requests to generate, and the events of an answer."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]  # length: max_new_tokens or the available room ended the answer


@dataclass(frozen=True)
class Tuning:
    """What a fine-tuning changes in the served model.

    Attributes:
        adapter: path of its adapter's file; None: the model's own, or none.
        version: of the file, so that a newer one is not taken for it.
        temperature: divides the log-probabilities of labels; None: they are not calibrated.
    """

    adapter: str | None = None
    version: int = 0
    temperature: float | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt to answer.

    Attributes:
        prompt: the text.
        param: field of the HTTP request that holds the prompt, for errors.
        max_new_tokens: maximum length of the answer.
        tuning: that answers it.
        temperature: 0 takes the most likely token each time.
        top_p: share of the probability to choose from.
        seed: of the random choice; None for a different one each time.
        stop: texts before which the answer ends.
        scored: completions of the prompt whose probabilities are requested.
        grammar: that the answer cannot leave; None: it is free.
        guided_by: field of the HTTP request that the grammar is from, for errors; None: the model has its own.
        top_logprobs: number of the most likely tokens whose log-probabilities come with each token; None: it has none itself.
        from_template: whether a chat template wrote the prompt, which may include the first token (BOS).
    """

    prompt: str
    param: str
    max_new_tokens: int
    tuning: Tuning = Tuning()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    scored: tuple[str, ...] = ()
    grammar: str | None = None
    guided_by: str | None = None
    top_logprobs: int | None = None
    from_template: bool = False

    @property
    def prompts(self) -> tuple[str, ...]:
        return (self.prompt,)


@dataclass(frozen=True)
class ScoringRequest:
    """Prompts whose completions are scored; nothing is generated. What all prompts begin with is read once.

    Attributes:
        prompts: the texts.
        completions: of each prompt, the texts to score.
        param: field of the HTTP request that holds what the prompts begin with, for errors.
        tuning: that scores them.
        from_template: as in `GenerationRequest`.
    """

    prompts: tuple[str, ...]
    completions: tuple[tuple[str, ...], ...]
    param: str
    tuning: Tuning = Tuning()
    from_template: bool = False


@dataclass(frozen=True)
class Cancel:
    """To the model process: nobody is waiting for the current answer."""


ModelRequest = GenerationRequest | ScoringRequest
Command = ModelRequest | Cancel | None  # None: exit


@dataclass(frozen=True)
class Ready:
    """The model is loaded."""


@dataclass(frozen=True)
class Started:
    """The prompts are known to have room; all their tokens are counted."""

    prompt_tokens: int


@dataclass(frozen=True)
class TokenLogprob:
    """A token's own text, and its log-probability before sampling and guidance."""

    text: str
    logprob: float


@dataclass(frozen=True)
class TokenLogprobs:
    """A token of an answer, the most likely tokens in its place, in their order, and the offset of its text in the answer."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]
    offset: int = 0


@dataclass(frozen=True)
class Token:
    """One more token.

    Attributes:
        text: that has become certain with it, often none.
        logprobs: if they are requested; None for a token that ends the answer.
    """

    text: str
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True)
class Finished:
    """The answer is complete.

    Attributes:
        text: the rest of the answer that had been held back.
        finish_reason: what ended the answer.
        probabilities: of `GenerationRequest.scored`, relative to each other.
    """

    text: str
    finish_reason: FinishReason
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Scored:
    """Log-probabilities of the completions of each prompt, divided by the model's temperature."""

    logprobs: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Cancelled:
    """The answer was cancelled as requested."""


@dataclass(frozen=True)
class Failed:
    """The request cannot be answered or, without a `param`, the model failed."""

    reason: str
    param: str | None
    code: str | None


ModelEvent = Ready | Started | Token | Finished | Scored | Cancelled | Failed
