"""How fast a runtime answers: time to the first token, tokens of the prompt and new tokens each second.

A runtime gets token ids and gives token ids, so no tokenizer is measured. Every answer has the same number of tokens: the
likeliest each time, never one that would end it.

- load_seconds: from the model's folder to a model that takes tokens. Imports do not count.
- time_to_first_token_ms: from the prompts' tokens to the first new token of each sequence; what a runtime sets up for an
  answer, such as its key-value cache, counts.
- prefill_tokens_per_second: tokens of all prompts of the batch by that time.
- decode_tokens_per_second: new tokens of all sequences but the first of each, by the time after the first.
"""

import statistics
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from tunepress.core.errors import InputError

DIGITS = 4  # of a figure; the clock and the machine give no more


class Runtime(Protocol):
    """A loaded model that answers a batch of prompts token by token, greedily.

    Attributes:
        load_seconds: what loading took.
    """

    load_seconds: float

    def prefill(self, prompts: list[list[int]], new_tokens: int) -> list[int]:
        """Begins answers.

        Args:
            prompts: token ids, [batch][tokens], all of one length.
            new_tokens: that the answers will have at most.

        Returns:
            The first new token of each sequence.
        """

    def step(self) -> list[int]:
        """The next token of each sequence."""


@dataclass(frozen=True)
class Workload:
    """What is asked of each runtime.

    Attributes:
        prompt_tokens: length of each prompt.
        new_tokens: length of each answer.
        batch_sizes: sequences answered at the same time; one measurement for each.
        repetitions: answers that count, for each batch size.
        warm_up: answers before them that do not.

    Raises:
        InputError: there would be nothing to measure.
    """

    prompt_tokens: int
    new_tokens: int
    batch_sizes: tuple[int, ...]
    repetitions: int
    warm_up: int

    def __post_init__(self) -> None:
        least = {"prompt_tokens": 1, "new_tokens": 2, "repetitions": 1, "warm_up": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise InputError(f"{name}: must be {smallest} or more")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise InputError("batch_sizes: must be one or more numbers of 1 or more")


@dataclass(frozen=True)
class Spread:
    """A figure of several repetitions."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Median and extremes, rounded to DIGITS significant digits."""
        found = list(values)
        return cls(*(float(f"{value:.{DIGITS}g}") for value in (statistics.median(found), min(found), max(found))))


@dataclass(frozen=True)
class Generation:
    """The answers to one batch of prompts, and the time they took.

    Attributes:
        tokens: new token ids, [batch][tokens].
        first_seconds: until each sequence had its first token.
        other_seconds: for the tokens after it.
    """

    tokens: list[list[int]]
    first_seconds: float
    other_seconds: float


def generate(runtime: Runtime, prompts: list[list[int]], new_tokens: int) -> Generation:
    """Answers of `new_tokens` tokens to prompts of one length."""
    start = time.perf_counter()
    steps = [runtime.prefill(prompts, new_tokens)]
    first = time.perf_counter()
    steps += [runtime.step() for _ in range(new_tokens - 1)]
    end = time.perf_counter()
    return Generation([list(tokens) for tokens in zip(*steps, strict=True)], first - start, end - first)


def measure(runtime: Runtime, prompt: list[int], workload: Workload) -> dict[str, Any]:
    """Figures of one runtime, as this module's text defines them.

    Args:
        runtime: the loaded model.
        prompt: token ids; its first `workload.prompt_tokens` are asked, the same in each sequence of a batch.
        workload: how much, how often.

    Returns:
        `load_seconds`, and for each batch size `batch_<size>`: three figures with median, min and max.

    Raises:
        InputError: the prompt is too short.
    """
    asked = prompt[: workload.prompt_tokens]
    if len(asked) < workload.prompt_tokens:
        raise InputError(f"prompt_tokens: {workload.prompt_tokens} are wanted, the text has {len(asked)}")
    measured: dict[str, Any] = {"load_seconds": float(f"{runtime.load_seconds:.{DIGITS}g}")}
    for size in workload.batch_sizes:
        runs = [generate(runtime, [asked] * size, workload.new_tokens) for _ in range(workload.warm_up + workload.repetitions)]
        measured[f"batch_{size}"] = figures(runs[workload.warm_up :], workload.prompt_tokens)
    return measured


def figures(runs: list[Generation], prompt_tokens: int) -> dict[str, dict[str, float]]:
    """What several answers to one batch took."""
    asked = len(runs[0].tokens) * prompt_tokens
    others = sum(len(tokens) - 1 for tokens in runs[0].tokens)
    spreads = {
        "time_to_first_token_ms": Spread.of(1000 * run.first_seconds for run in runs),
        "prefill_tokens_per_second": Spread.of(asked / run.first_seconds for run in runs),
        "decode_tokens_per_second": Spread.of(others / run.other_seconds for run in runs),
    }
    return {name: asdict(spread) for name, spread in spreads.items()}
