"""The order of the training sequences: it depends only on data_seed and the epoch, not on the number of processes."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from tunepress.config.train import SamplingStrategy


class SequenceSampler(Sampler[int]):
    """Yields the indices of the sequences, in a new order each epoch.

    Several processes take turns at the batches. If the batches cannot be divided evenly, accelerate would start again and learn
    some rows twice; here the index of an empty sequence fills them up, so that every row is learned once.
    """

    def __init__(
        self, lengths: list[int], strategy: SamplingStrategy, data_seed: int, batch_size: int, num_processes: int
    ) -> None:
        """Samples sequences of these lengths in tokens; the index of the empty sequence is `len(lengths)`."""
        self.lengths, self.strategy, self.data_seed, self.batch_size = lengths, strategy, data_seed, batch_size
        self.filling = -len(lengths) % (batch_size * num_processes) if num_processes > 1 else 0
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths) + self.filling

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.data_seed * 1_000_003 + self.epoch)
        if self.strategy is SamplingStrategy.random:
            yield from torch.randperm(len(self.lengths), generator=generator).tolist()
        elif self.strategy is SamplingStrategy.group_by_length:
            yield from get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        else:
            yield from range(len(self.lengths))
        yield from [len(self.lengths)] * self.filling

    def callback(self) -> TrainerCallback:
        """Sets the epoch; accelerate does so too, but does not reach the sampler of a resumed run with several processes."""
        return EpochCallback(self)


class EpochCallback(TrainerCallback):
    def __init__(self, sampler: SequenceSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called before each epoch, and again in the middle of an epoch that is resumed."""
        self.sampler.set_epoch(int(state.epoch or 0))
