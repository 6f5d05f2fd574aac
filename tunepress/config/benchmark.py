"""`benchmark`: the work by which the models' speed is measured."""

from dataclasses import dataclass


@dataclass
class Benchmark:
    """One prompt, repeated in each batch; all figures are of this length."""

    prompt_tokens: int
    new_tokens: int
    batch_sizes: list[int]
    warm_up: int
    repetitions: int
