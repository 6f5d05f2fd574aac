"""Measures how fast a runtime answers: the time to the first token, and prompt tokens and new tokens per second.

A runtime takes and returns token ids, so the tokenizer is not measured. Every answer has the same number of tokens, always the
most probable ones, except that the tokens that would end the answer are never chosen.

- load_seconds: from the model's folder to a model that takes tokens. Imports do not count.
- time_to_first_token_ms: from the prompts' tokens to the first new token of each sequence, including what a runtime allocates
  for an answer, such as its key-value cache.
- prefill_tokens_per_second: the tokens of all prompts of the batch, divided by that time.
- decode_tokens_per_second: the new tokens of all sequences except the first of each, divided by the time after the first.
"""

import statistics
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from tunepress.core.errors import InputError

DIGITS = 4  # significant digits of a result; the clock and the machine are no more precise


class Runtime(Protocol):
    """A loaded model that answers a batch of prompts token by token, greedily.

    Attributes:
        load_seconds: the time that loading took.
    """

    load_seconds: float

    def prefill(self, prompts: list[list[int]], new_tokens: int) -> list[int]:
        """Starts the answers and returns the first new token of each sequence.

        Args:
            prompts: token ids, [batch][tokens], all of the same length.
            new_tokens: the maximum length of the answers.
        """

    def step(self) -> list[int]:
        """Returns the next token of each sequence."""


@dataclass(frozen=True)
class Workload:
    """The work that is measured.

    Attributes:
        prompt_tokens: length of each prompt.
        new_tokens: length of each answer.
        batch_sizes: numbers of sequences that are answered at the same time; each is measured.
        repetitions: number of measured answers for each batch size.
        warm_up: number of answers before them that are not measured.

    Raises:
        InputError: there would be nothing to measure.
    """

    prompt_tokens: int
    new_tokens: int
    batch_sizes: tuple[int, ...]
    repetitions: int
    warm_up: int

    def __post_init__(self) -> None:
        minimums = {"prompt_tokens": 1, "new_tokens": 2, "repetitions": 1, "warm_up": 0}
        for name, minimum in minimums.items():
            if (value := getattr(self, name)) < minimum:
                raise InputError(f"{name}: must be at least {minimum}, got {value}")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise InputError(f"batch_sizes: must be one or more numbers of at least 1, got {list(self.batch_sizes)}")


@dataclass(frozen=True)
class Spread:
    """The result of several repetitions."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Rounds to DIGITS significant digits."""
        values = list(values)
        return cls(*(float(f"{value:.{DIGITS}g}") for value in (statistics.median(values), min(values), max(values))))


@dataclass(frozen=True)
class Generation:
    """The answers to one batch of prompts, and the time they took.

    Attributes:
        tokens: new token ids, [batch][tokens].
        first_seconds: time until each sequence had its first token.
        other_seconds: time for the remaining tokens.
    """

    tokens: list[list[int]]
    first_seconds: float
    other_seconds: float


def generate(runtime: Runtime, prompts: list[list[int]], new_tokens: int) -> Generation:
    """Generates answers of `new_tokens` tokens to prompts of the same length."""
    start = time.perf_counter()
    steps = [runtime.prefill(prompts, new_tokens)]
    first = time.perf_counter()
    steps += [runtime.step() for _ in range(new_tokens - 1)]
    end = time.perf_counter()
    return Generation([list(tokens) for tokens in zip(*steps, strict=True)], first - start, end - first)


def measure(runtime: Runtime, prompt: list[int], workload: Workload) -> dict[str, Any]:
    """Measures one runtime; the results are defined in the module's docstring.

    Args:
        runtime: the loaded model.
        prompt: token ids; the first `workload.prompt_tokens` are used, the same in each sequence of a batch.
        workload: how much is generated, and how often.

    Returns:
        `load_seconds`, and for each batch size `batch_<size>`: three results, each with median, min and max.

    Raises:
        InputError: the prompt is too short.
    """
    if len(prompt) < workload.prompt_tokens:
        raise InputError(f"prompt_tokens: the text has only {len(prompt)} of {workload.prompt_tokens} tokens")
    prompt = prompt[: workload.prompt_tokens]
    results: dict[str, Any] = {"load_seconds": float(f"{runtime.load_seconds:.{DIGITS}g}")}
    for size in workload.batch_sizes:
        runs = [generate(runtime, [prompt] * size, workload.new_tokens) for _ in range(workload.warm_up + workload.repetitions)]
        results[f"batch_{size}"] = summarize(runs[workload.warm_up :], workload.prompt_tokens)
    return results


def summarize(runs: list[Generation], prompt_tokens: int) -> dict[str, dict[str, float]]:
    """Computes the speed of several runs with the same batch."""
    prefill_tokens = len(runs[0].tokens) * prompt_tokens
    decode_tokens = sum(len(tokens) - 1 for tokens in runs[0].tokens)
    spreads = {
        "time_to_first_token_ms": Spread.of(1000 * run.first_seconds for run in runs),
        "prefill_tokens_per_second": Spread.of(prefill_tokens / run.first_seconds for run in runs),
        "decode_tokens_per_second": Spread.of(decode_tokens / run.other_seconds for run in runs),
    }
    return {name: asdict(spread) for name, spread in spreads.items()}
