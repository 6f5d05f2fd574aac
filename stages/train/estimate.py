"""What a training is about to do, told before it starts: what is learned, in how many steps, and whether it fits."""

import math
import os
import time
from dataclasses import dataclass

import psutil
import torch
from peft import PeftModel

from stages.train.trainer import joinable
from tunepress.config.adapter import Adapter
from tunepress.config.train import Train, interval
from tunepress.core.cgroups import memory_left
from tunepress.core.errors import InputError
from tunepress.text.packing import PackedSequence, token_count
from tunepress.text.tokenizer import IGNORE_INDEX

EFFICIENCY = 0.46  # of a training's products against large ones: `python -m benchmarks.train`
PRODUCT = 1024  # rows and columns of a large product
SECONDS = 0.2  # that its speed is measured for

# Bytes that an optimizer keeps for each trained parameter; any other keeps two float32 moments.
OPTIMIZER_BYTES = {"sgd": 0, "adafactor": 0.1, "lion_32bit": 4, "adagrad": 4, "rmsprop": 4}
MOMENTS, MOMENTS_8BIT = 8, 2
FOUR_BITS = 4.5 / 8  # bytes of a 4-bit weight with a float32 scale for each 64
RUNTIME = 0.62e9  # Python with torch, transformers, peft and a tokenizer, before there is a model

# Kept for the backward pass, for each value that a linear layer gives: itself, and what the norm, the activation or the
# product behind it keep. Measured on SmolLM2-135M in float32. A CPU's is more, for C's heap is full of holes, and
# checkpointing lowers it by half alone: blocks below 32 MB stay in the heap when they are freed (mallopt(3)).
KEPT_PER_OUTPUT, KEPT_PER_OUTPUT_ON_CPU = 2.6, 3.5
CHECKPOINTED_ON_CPU = 0.5
HEAP_BLOCK = 32 << 20
LOGIT_COPIES = 3  # logits in float32, their log-softmax, their gradient


@dataclass(frozen=True)
class Plan:
    """A training in figures.

    Attributes:
        trainable: parameters of the adapter.
        parameters: of base model and adapter.
        sequences: of an epoch.
        tokens: of an epoch.
        learned: tokens of all steps, those of a row again in each epoch.
        steps: of the optimizer.
        sequences_a_step: over all processes.
        validations: how often the validation rows are scored, at most; 0 where there are none.
        validation_tokens: of the validation rows.
        validation_share: of the time of the training.
        processes: of all machines.
        operations: additions and multiplications of all steps and validations.
        split_examples: whether examples of a sequence are computed one at a time.
        needed: estimated peak memory of all processes on this machine that share one device, in bytes.
    """

    trainable: int
    parameters: int
    sequences: int
    tokens: int
    learned: int
    steps: int
    sequences_a_step: int
    validations: int
    validation_tokens: int
    validation_share: float
    processes: int
    operations: int
    split_examples: bool
    needed: int

    @classmethod
    def of(
        cls,
        model: PeftModel,
        sequences: list[PackedSequence],
        validated: list[PackedSequence],
        adapter: Adapter,
        train: Train,
        sharing: int,
    ) -> "Plan":
        """Plans a training.

        Args:
            model: its shapes, as `adapter.outline` gives them.
            sequences: of the training rows.
            validated: those of the validation rows.
            adapter: what is trained.
            train: how.
            sharing: processes that take their memory from the same device.
        """
        trainable, parameters = model.get_nb_trainable_parameters()
        world = int(os.environ.get("WORLD_SIZE", train.num_processes * int(os.environ.get("PET_NNODES", "1"))))
        lengths = sorted(map(token_count, sequences), reverse=True)
        labels = sorted((label_count(sequence) for sequence in sequences), reverse=True)
        batch = train.per_device_train_batch_size
        batches = math.ceil(len(sequences) / (batch * world))
        steps_an_epoch = math.ceil(batches / train.gradient_accumulation_steps)
        steps = train.max_steps if train.max_steps > 0 else math.ceil(train.num_train_epochs * steps_an_epoch)
        needed = estimated_bytes(model, train, adapter.method.quantized, sum(lengths[:batch]), sum(labels[:batch]))
        a_step = batch * world * train.gradient_accumulation_steps
        validations = validation_count(train, steps, steps_an_epoch) if validated else 0
        scored = sum(map(token_count, validated))
        learned = round(sum(lengths) * steps / max(steps_an_epoch, 1))
        work = validations * scored + learned * passes(train)
        return cls(
            trainable=trainable,
            parameters=parameters,
            sequences=len(sequences),
            tokens=sum(lengths),
            learned=learned,
            steps=steps,
            sequences_a_step=a_step,
            validations=validations,
            validation_tokens=scored,
            validation_share=validations * scored / max(work, 1),
            processes=world,
            operations=2 * parameters * work,
            split_examples=not joinable(model.get_base_model()),
            needed=needed * sharing,
        )

    def check_memory(self, train: Train, quantized: bool) -> str:
        """What is needed and what there is, in a few words.

        Raises:
            InputError: it is more than there is; with what would make it less.
        """
        there = available_bytes()
        if self.needed <= there or not train.check_memory:
            return f"about {self.needed / 1e9:.1f} of {there / 1e9:.1f} GB free memory"
        batch = train.per_device_train_batch_size
        advice = [
            f"a smaller train.per_device_train_batch_size than {batch}" if batch > 1 else None,
            None if train.gradient_checkpointing else "train.gradient_checkpointing=true",
            None if quantized else "adapter=qlora",
            None if train.bf16 else "train.bf16=true",
            "a smaller data.source_max_len" if batch == 1 else None,
            "train.check_memory=false",
        ]
        raise InputError(
            f"needs about {self.needed / 1e9:.1f} GB of memory and {there / 1e9:.1f} GB are free; "
            f"try {' or '.join(filter(None, advice))}"
        )

    def __str__(self) -> str:
        parts = [
            f"{self.trainable / 1e6:.2f} of {self.parameters / 1e6:.0f} M parameters",
            f"{self.sequences} sequences of {self.tokens:,} tokens an epoch",
            f"{self.steps} steps of {self.sequences_a_step}",
        ]
        if self.split_examples:
            parts.append("one example at a time (in one row they would affect each other in this architecture)")
        if self.validations:
            count = f"{self.validations} validation{'s' if self.validations > 1 else ''}"
            parts.append(f"{count} of {self.validation_tokens:,} tokens (about {self.validation_share:.0%} of the time)")
        return ", ".join(parts)

    def seconds(self, rate: float) -> float:
        """How long all of it takes where each process has `rate` operations a second in large products."""
        return self.operations / (rate * EFFICIENCY * self.processes)

    def seconds_left(self, step: int, tokens_a_second: float) -> float:
        """How long the steps after `step` take, with their validations, at a speed of learning."""
        return (1 - step / self.steps) * self.learned / tokens_a_second / (1 - self.validation_share)


def validation_count(train: Train, steps: int, steps_an_epoch: int) -> int:
    """How often a training evaluates: the last step counts, whatever the strategy (`train.outcome` sees to it)."""
    if train.eval_strategy == "steps":
        return math.ceil(steps / interval(train.eval_steps or train.logging_steps, steps))
    return math.ceil(steps / max(steps_an_epoch, 1)) if train.eval_strategy == "epoch" else 1


def passes(train: Train) -> int:
    """Time of a token that is learned in times of one that is scored: forward, back to the input, and forward once more.

    The weights of the base model are frozen, so that the way back is one product for each, as the way forward is.
    """
    return 3 if train.gradient_checkpointing else 2


def product_rate(dtype: torch.dtype) -> float:
    """Operations a second of this process in large products, the best of a moment."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    factor = torch.ones(PRODUCT, PRODUCT, dtype=dtype, device=device)
    best, end = math.inf, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        (factor @ factor)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return float(2 * PRODUCT**3 / best)


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {math.ceil(seconds)} s"


def label_count(sequence: PackedSequence) -> int:
    """Positions of a sequence that have a label."""
    return sum(label != IGNORE_INDEX for example in sequence for label in example["labels"])


def estimated_bytes(model: PeftModel, train: Train, quantized: bool, tokens: int, labels: int) -> int:
    """Peak memory of one process in bytes, to a third or so.

    Args:
        model: its shapes, as `adapter.outline` gives them.
        train: how it is trained.
        quantized: whether the base model is held in 4 bits.
        tokens: of the largest batch.
        labels: positions with a label of the largest batch.
    """
    width = 2 if train.bf16 else 4
    linear = {id(m.weight) for m in frozen_linear(model)}
    frozen = sum(
        p.numel() * (FOUR_BITS if quantized and id(p) in linear else width) for p in model.parameters() if not p.requires_grad
    )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    moments = OPTIMIZER_BYTES.get(train.optim, MOMENTS_8BIT if "8bit" in train.optim else MOMENTS)
    layers = frozen_linear(model)
    on_cpu = not torch.cuda.is_available()
    kept = tokens * sum(layer.out_features for layer in layers) * width * (KEPT_PER_OUTPUT_ON_CPU if on_cpu else KEPT_PER_OUTPUT)
    if train.gradient_checkpointing:
        blocks = model.config.num_hidden_layers
        least = kept / blocks + tokens * model.config.hidden_size * blocks * width
        kept = max(least, kept * CHECKPOINTED_ON_CPU) if on_cpu else least
    if quantized:
        kept += dequantized_bytes([layer.weight.numel() * width for layer in layers], on_cpu)
    logits = labels * model.config.vocab_size * 4 * LOGIT_COPIES
    return int(RUNTIME + frozen + trained * (4 + 4 + moments) + kept + logits)


def dequantized_bytes(sizes: list[int], on_cpu: bool) -> int:
    """Memory for the products with 4-bit weights, which bitsandbytes makes floats of each time anew.

    Args:
        sizes: of the weights as floats, in bytes.
        on_cpu: whether they come from C's heap, where small ones leave holes.
    """
    return 2 * (max(sizes, default=0) + sum(size for size in sizes if on_cpu and size < HEAP_BLOCK))


def frozen_linear(model: PeftModel) -> list[torch.nn.Linear]:
    """The base model's linear layers but the head."""
    head = model.get_base_model().get_output_embeddings()
    return [m for m in model.modules() if isinstance(m, torch.nn.Linear) and not m.weight.requires_grad and m is not head]


def available_bytes() -> int:
    """Free memory of the device that trains, in bytes."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return host_bytes()


def host_bytes() -> int:
    """Free memory of this machine, or what a container leaves of it, in bytes."""
    return min(int(psutil.virtual_memory().available), memory_left())


def peak_gpu_bytes() -> int:
    """Largest memory that torch has taken on this process's GPU, 0 without one."""
    return int(torch.cuda.max_memory_reserved()) if torch.cuda.is_available() else 0
