"""Speed: how long a model makes its user wait for the first token of an answer, and for each one after it."""

import time
from collections.abc import Iterator, Sequence
from itertools import chain, cycle, islice
from statistics import median
from typing import Any, Protocol

from stages.lib.likelihood import Tokens


class Runtime(Protocol):
    """A model that answers a batch of prompts of one length."""

    def stream(self, prompts: list[Tokens], new_tokens: int) -> Iterator[list[int]]:
        """Yields the next token of each prompt, `new_tokens` times, whether or not an answer would end before."""


def measure(runtime: Runtime, prompt: Tokens, new_tokens: int, batch_size: int, warm_up: int, repetitions: int) -> dict[str, Any]:
    """Median, minimum and maximum over `repetitions` answers to a batch of one prompt, `warm_up` others before them.

    Returns:
        time_to_first_token_ms: from the prompts' tokens to the first token of each answer, in milliseconds;
        prefill_tokens_per_second: tokens of all prompts by that time;
        decode_tokens_per_second: tokens of all answers but the first of each, by the time behind the first.
    """
    runs = [timed(runtime, [prompt] * batch_size, new_tokens) for _ in range(warm_up + repetitions)][warm_up:]
    return {
        "time_to_first_token_ms": spread([first * 1000 for first, _ in runs]),
        "prefill_tokens_per_second": spread([batch_size * len(prompt) / first for first, _ in runs]),
        "decode_tokens_per_second": spread([batch_size * (new_tokens - 1) / rest for _, rest in runs]),
    }


def timed(runtime: Runtime, prompts: list[Tokens], new_tokens: int) -> tuple[float, float]:
    """Seconds to the first token of each answer, and from there to the last."""
    start = time.perf_counter()
    stream = runtime.stream(prompts, new_tokens)
    next(stream)
    first = time.perf_counter()
    for _ in stream:
        pass
    return first - start, time.perf_counter() - first


def spread(values: Sequence[float]) -> dict[str, float]:
    """The middle of some measurements and how far they lie apart."""
    return {"median": round(median(values), 2), "min": round(min(values), 2), "max": round(max(values), 2)}


def prompt_of(texts: Sequence[Tokens], length: int) -> Tokens:
    """A prompt of exactly `length` tokens, of the texts one behind the other and over again."""
    return list(islice(chain.from_iterable(cycle(texts)), length))
