"""Estimates a training before it starts: what is trained, the number of steps, the time, and the memory."""

import math
import os
import time
from dataclasses import dataclass

import torch
from peft import PeftModel

from stages.train.trainer import joinable
from tunepress.config.adapter import Adapter
from tunepress.config.train import Train, interval
from tunepress.core.cgroups import free_memory
from tunepress.core.errors import InputError
from tunepress.text.packing import PackedSequence, token_count
from tunepress.text.tokenizer import IGNORE_INDEX

EFFICIENCY = 0.46  # speed of the products in training, relative to large ones: `python -m benchmarks.train`
PRODUCT = 1024  # rows and columns of a large product
SECONDS = 0.2  # for which its speed is measured

# Bytes that an optimizer keeps for each trained parameter; all others keep two float32 moments.
OPTIMIZER_BYTES = {"sgd": 0, "adafactor": 0.1, "lion_32bit": 4, "adagrad": 4, "rmsprop": 4}
MOMENTS, MOMENTS_8BIT = 8, 2
FOUR_BITS = 4.5 / 8  # bytes of a 4-bit weight, with a float32 scale for every 64 weights
RUNTIME = 0.62e9  # Python with torch, transformers, peft and a tokenizer, before a model is loaded
CUDA_CONTEXT = 0.5e9  # of a process on a GPU, with the work space of cuBLAS; not measured here

# Values kept for the backward pass for each output of a linear layer: the output itself, and what the next norm, activation or
# product keeps. Measured on SmolLM2-135M in float32. A CPU needs more, because C's heap is fragmented, and checkpointing
# only halves it: blocks below 32 MB stay in the heap when they are freed (mallopt(3)).
KEPT_PER_OUTPUT, KEPT_PER_OUTPUT_ON_CPU = 2.6, 3.5
CHECKPOINTED_ON_CPU = 0.5
HEAP_BLOCK = 32 << 20
LOGIT_COPIES = 3  # logits in float32, their log-softmax, their gradient


@dataclass(frozen=True)
class Plan:
    """The numbers of a training.

    Attributes:
        trainable: number of parameters of the adapter.
        parameters: number of parameters of base model and adapter.
        sequences: number of sequences in an epoch.
        tokens: number of tokens in an epoch.
        learned: number of tokens in all steps; those of a row count again in each epoch.
        steps: number of optimizer steps.
        sequences_a_step: number of sequences in a step, over all processes.
        validations: maximum number of evaluations; 0 without validation rows.
        validation_tokens: number of tokens of the validation rows.
        validation_share: share of the time that validation takes.
        processes: number of processes on all machines.
        operations: number of additions and multiplications in all steps and validations.
        split_examples: whether the examples of a sequence are computed one at a time.
        casts: whether the base model's linear layers stay in 16 bits and are cast to float32 for each product.
        needed: estimated peak memory in bytes of all processes that share a device of this machine.
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
    casts: bool
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
        in_sixteen_bits: bool,
    ) -> "Plan":
        """Plans a training.

        Args:
            model: a model without weights, from `adapter.outline`.
            sequences: the training sequences.
            validated: the validation sequences.
            adapter: the section adapter.
            train: the section train.
            sharing: number of processes that share the memory of a device.
            in_sixteen_bits: whether the files of the base model have 16 bits.
        """
        trainable, parameters = model.get_nb_trainable_parameters()
        world = int(os.environ.get("WORLD_SIZE", train.num_processes * int(os.environ.get("PET_NNODES", "1"))))
        lengths = sorted(map(token_count, sequences), reverse=True)
        labels = sorted((label_count(sequence) for sequence in sequences), reverse=True)
        batch = train.per_device_train_batch_size
        batches = math.ceil(len(sequences) / (batch * world))
        steps_an_epoch = math.ceil(batches / train.gradient_accumulation_steps)
        steps = train.max_steps if train.max_steps > 0 else math.ceil(train.num_train_epochs * steps_an_epoch)
        largest = sum(lengths[:batch]), sum(labels[:batch])
        needed = estimated_bytes(model, train, adapter.method.quantized, *largest)
        casts = in_sixteen_bits and needed > available_bytes() and can_cast(adapter, train)
        if casts:
            needed = estimated_bytes(model, train, adapter.method.quantized, *largest, casts=True)
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
            casts=casts,
            needed=needed * sharing,
        )

    def check_memory(self, train: Train, quantized: bool) -> str:
        """Compares the needed memory with the free memory, in words.

        Raises:
            InputError: more is needed than is free. The message names settings that need less.
        """
        free = available_bytes()
        if self.needed <= free or not train.check_memory:
            return f"about {self.needed / 1e9:.1f} of {free / 1e9:.1f} GB free memory"
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
            f"needs about {self.needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free; "
            f"try {' or '.join(filter(None, advice))}"
        )

    def __str__(self) -> str:
        parts = [
            f"{self.trainable / 1e6:.2f} of {self.parameters / 1e6:.0f} M parameters",
            f"{self.sequences} sequences of {self.tokens:,} tokens an epoch",
            f"{self.steps} steps of {self.sequences_a_step}",
        ]
        if self.casts:
            parts.append("the base model in 16 bits, to save memory (with the same result)")
        if self.split_examples:
            parts.append("one example at a time (in one row they would affect each other in this architecture)")
        if self.validations:
            count = f"{self.validations} validation{'s' if self.validations > 1 else ''}"
            parts.append(f"{count} of {self.validation_tokens:,} tokens (about {self.validation_share:.0%} of the time)")
        return ", ".join(parts)

    def seconds(self, rate: float) -> float:
        """Estimates the time of the training if each process does `rate` operations a second in large products."""
        return self.operations / (rate * EFFICIENCY * self.processes)

    def seconds_left(self, step: int, tokens_a_second: float) -> float:
        """How long the steps after `step` take, with their validations, at a speed of learning."""
        return (1 - step / self.steps) * self.learned / tokens_a_second / (1 - self.validation_share)


def validation_count(train: Train, steps: int, steps_an_epoch: int) -> int:
    """The number of evaluations in a training, including the one after the last step that `train.outcome` makes in any case."""
    if train.eval_strategy == "steps":
        return math.ceil(steps / interval(train.eval_steps or train.logging_steps, steps))
    return math.ceil(steps / max(steps_an_epoch, 1)) if train.eval_strategy == "epoch" else 1


def passes(train: Train) -> int:
    """The cost of training on a token relative to scoring it: a forward pass, a backward pass, and perhaps a second forward pass.

    The weights of the base model are frozen, so the backward pass needs one product for each, like the forward pass.
    """
    return 3 if train.gradient_checkpointing else 2


def product_rate(dtype: torch.dtype) -> float:
    """Measures the operations per second of this process in large products; the best of several."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    factor = torch.ones(PRODUCT, PRODUCT, dtype=dtype, device=device)
    best, end = math.inf, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        (factor @ factor)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return float(2 * PRODUCT**3 / best)


def duration(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {math.ceil(seconds)} s"


def label_count(sequence: PackedSequence) -> int:
    return sum(label != IGNORE_INDEX for example in sequence for label in example["labels"])


def can_cast(adapter: Adapter, train: Train) -> bool:
    """Whether a base model can stay in 16 bits: in one process on a CPU, which does not read its weights."""
    plain = not (adapter.method.quantized or adapter.method.use_dora) and adapter.init_lora_weights in (True, "gaussian")
    one_process = train.num_processes == 1 and not train.fsdp and "WORLD_SIZE" not in os.environ
    return plain and one_process and not (train.bf16 or train.torch_compile or torch.cuda.is_available())


def estimated_bytes(
    model: PeftModel, train: Train, quantized: bool, tokens: int, labels: int, *, casts: bool = False, on_cpu: bool | None = None
) -> int:
    """Estimates the peak memory of one process in bytes, to about a third.

    Args:
        model: a model without weights, from `adapter.outline`.
        train: the section train.
        quantized: whether the base model is loaded in 4 bits.
        tokens: number of tokens of the largest batch.
        labels: number of labels of the largest batch.
        casts: whether the base model's linear layers are in 16 bits.
        on_cpu: None: whether this machine has no GPU.
    """
    width = 2 if train.bf16 else 4
    in_linear = FOUR_BITS if quantized else 2 if casts else width
    linear = {id(m.weight) for m in frozen_linear(model)}
    frozen = sum(p.numel() * (in_linear if id(p) in linear else width) for p in model.parameters() if not p.requires_grad)
    if casts:
        frozen += width * max(layer.weight.numel() for layer in frozen_linear(model))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    moments = OPTIMIZER_BYTES.get(train.optim, MOMENTS_8BIT if "8bit" in train.optim else MOMENTS)
    layers = frozen_linear(model)
    on_cpu = not torch.cuda.is_available() if on_cpu is None else on_cpu
    per_output = KEPT_PER_OUTPUT_ON_CPU if on_cpu else KEPT_PER_OUTPUT
    activations = tokens * sum(layer.out_features for layer in layers) * width * per_output
    if train.gradient_checkpointing:
        blocks = model.config.num_hidden_layers
        checkpointed = activations / blocks + tokens * model.config.hidden_size * blocks * width
        activations = max(checkpointed, activations * CHECKPOINTED_ON_CPU) if on_cpu else checkpointed
    if quantized:
        activations += dequantized_bytes([layer.weight.numel() * width for layer in layers], on_cpu)
    logits = labels * model.config.vocab_size * 4 * LOGIT_COPIES
    return int((RUNTIME if on_cpu else CUDA_CONTEXT) + frozen + trained * (4 + 4 + moments) + activations + logits)


def dequantized_bytes(sizes: list[int], on_cpu: bool) -> int:
    """Memory for the products with 4-bit weights, which bitsandbytes dequantizes each time.

    Args:
        sizes: sizes of the weights as floats, in bytes.
        on_cpu: whether they are allocated in C's heap, which small ones fragment.
    """
    return 2 * (max(sizes, default=0) + sum(size for size in sizes if on_cpu and size < HEAP_BLOCK))


def frozen_linear(model: PeftModel) -> list[torch.nn.Linear]:
    """The base model's linear layers except the head."""
    head = model.get_base_model().get_output_embeddings()
    return [m for m in model.modules() if isinstance(m, torch.nn.Linear) and not m.weight.requires_grad and m is not head]


def available_bytes() -> int:
    """Free memory of the device that trains, in bytes."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return free_memory()


def peak_gpu_bytes() -> int:
    """Peak memory that torch has allocated on this process's GPU; 0 without one."""
    return int(torch.cuda.max_memory_reserved()) if torch.cuda.is_available() else 0
