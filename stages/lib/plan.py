"""What a training is about to do, told before it starts: what is learned, in how many steps, and whether it fits."""

import math
import os
from dataclasses import dataclass

from peft import PeftModel

from stages.lib.corpus import Sequence
from stages.lib.edge.errors import InputError
from stages.lib.memory import available_bytes, estimated_bytes
from stages.lib.schema.adapter import Adapter
from stages.lib.schema.train import Train
from stages.lib.tokens import IGNORED


@dataclass(frozen=True)
class Plan:
    """A training in figures.

    Attributes:
        trainable: parameters of the adapter.
        parameters: of base model and adapter.
        sequences: of an epoch.
        tokens: of an epoch.
        steps: of the optimizer.
        sequences_a_step: over all processes.
        needed: estimated peak memory of all processes on this machine that share one device, in bytes.
    """

    trainable: int
    parameters: int
    sequences: int
    tokens: int
    steps: int
    sequences_a_step: int
    needed: int

    @classmethod
    def of(cls, model: PeftModel, sequences: list[Sequence], adapter: Adapter, train: Train, sharing: int) -> "Plan":
        """Plans a training.

        Args:
            model: its shapes, as `adapter.outline` gives them.
            sequences: of the training rows.
            adapter: what is trained.
            train: how.
            sharing: processes that take their memory from the same device.
        """
        trainable, parameters = model.get_nb_trainable_parameters()
        world = int(os.environ.get("WORLD_SIZE", train.num_processes * int(os.environ.get("PET_NNODES", "1"))))
        lengths = sorted((sum(len(example["input_ids"]) for example in sequence) for sequence in sequences), reverse=True)
        labels = sorted((label_count(sequence) for sequence in sequences), reverse=True)
        batch = train.per_device_train_batch_size
        batches = math.ceil(len(sequences) / (batch * world))
        steps_an_epoch = math.ceil(batches / train.gradient_accumulation_steps)
        steps = train.max_steps if train.max_steps > 0 else math.ceil(train.num_train_epochs * steps_an_epoch)
        needed = estimated_bytes(model, train, adapter.method.quantized, sum(lengths[:batch]), sum(labels[:batch]))
        a_step = batch * world * train.gradient_accumulation_steps
        return cls(trainable, parameters, len(sequences), sum(lengths), steps, a_step, needed * sharing)

    def check_memory(self, train: Train, quantized: bool) -> str:
        """What is needed and what there is, in a few words.

        Raises:
            InputError: it is more than there is; with what would make it less.
        """
        there = available_bytes()
        if self.needed <= there:
            return f"about {self.needed / 1e9:.1f} of {there / 1e9:.1f} GB free memory"
        batch = train.per_device_train_batch_size
        advice = [
            f"a smaller train.per_device_train_batch_size than {batch}" if batch > 1 else None,
            None if train.gradient_checkpointing else "train.gradient_checkpointing=true",
            None if quantized else "adapter=qlora",
            None if train.bf16 else "train.bf16=true",
            "a smaller data.source_max_len" if batch == 1 else None,
        ]
        raise InputError(
            f"needs about {self.needed / 1e9:.1f} GB of memory and {there / 1e9:.1f} GB are free; "
            f"try {' or '.join(filter(None, advice))}"
        )

    def __str__(self) -> str:
        return (
            f"{self.trainable / 1e6:.2f} of {self.parameters / 1e6:.0f} M parameters, "
            f"{self.sequences} sequences of {self.tokens:,} tokens an epoch, {self.steps} steps of {self.sequences_a_step}"
        )


def label_count(sequence: Sequence) -> int:
    """Positions of a sequence that have a label."""
    return sum(label != IGNORED for example in sequence for label in example["labels"])
