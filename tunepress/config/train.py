"""`train`: how the adapter is trained, in the words of transformers' TrainingArguments."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any


class SamplingStrategy(Enum):
    """In which order rows are learned."""

    random = "random"
    sequential = "sequential"
    group_by_length = "group_by_length"


@dataclass
class Train:
    """Fields of TrainingArguments of the same names, except those under the line."""

    data_seed: int
    num_train_epochs: float  # how often each row is learned
    max_steps: int
    per_device_train_batch_size: int
    per_device_eval_batch_size: int  # rows in a forward pass of validation
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    learning_rate: float  # at its highest
    lr_scheduler_type: str
    lr_scheduler_kwargs: dict[str, Any]
    warmup_steps: float
    weight_decay: float  # of the optimizer
    optim: str
    adam_beta1: float  # of the optimizer
    adam_beta2: float  # of the optimizer
    max_grad_norm: float  # longer gradients are scaled down to this norm
    bf16: bool
    tf32: bool
    torch_compile: bool
    use_liger_kernel: bool
    train_sampling_strategy: SamplingStrategy
    logging_steps: float
    eval_strategy: str
    eval_steps: float | None
    save_strategy: str
    save_steps: float  # from one checkpoint to the next
    load_best_model_at_end: bool
    fsdp: bool
    fsdp_config: dict[str, Any]
    # ----
    completion_only_loss: bool  # trl's SFTConfig
    attn_implementation: str  # transformers' from_pretrained
    early_stopping_patience: int | None  # transformers' EarlyStoppingCallback
    early_stopping_threshold: float
    num_processes: int  # accelerate launch
    check_memory: bool


OURS = (  # not of TrainingArguments
    "completion_only_loss",
    "attn_implementation",
    "early_stopping_patience",
    "early_stopping_threshold",
    "num_processes",
    "check_memory",
)
INTERVALS = ("logging_steps", "eval_steps", "save_steps")


def problem(train: Train) -> str | None:
    """Which of these values cannot go together, in one line that says what to do; None if all can."""
    return numbers_problem(train) or fsdp_problem(train) or selection_problem(train)


def numbers_problem(train: Train) -> str | None:
    for name in ("num_processes", "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        if getattr(train, name) < 1:
            return f"train.{name}: must be at least 1, got {getattr(train, name)}"
    for name in INTERVALS:
        steps = getattr(train, name)
        if steps is not None and not (0 < steps < 1 or (steps >= 1 and steps == steps // 1)):  # nan too
            return f"train.{name}: must be a whole number of steps from 1, or a share of all steps below 1, got {steps:g}"
    if train.max_steps <= 0 and train.num_train_epochs <= 0:
        return f"train.num_train_epochs: must be above 0 unless train.max_steps is set, got {train.num_train_epochs}"
    return None


def fsdp_problem(train: Train) -> str | None:
    if train.fsdp and train.num_processes == 1:
        return "train.fsdp: spreads the model over processes, and train.num_processes is 1; set it to the number of GPUs"
    if train.fsdp_config and not train.fsdp:
        return "train.fsdp_config: set, but train.fsdp is false; set that to true, or {} here"
    if train.fsdp_config.get("activation_checkpointing"):  # it renames the layers, and nothing of the adapter would be saved
        return "train.fsdp_config.activation_checkpointing: set train.gradient_checkpointing=true instead"
    if train.fsdp_config.get("cpu_offload"):  # needs a backend for both devices, and could not be tried
        return "train.fsdp_config.cpu_offload: not supported; leave it out, adapter=qlora needs less memory"
    return None


def selection_problem(train: Train) -> str | None:
    if train.early_stopping_patience is not None and not train.load_best_model_at_end:
        return (
            "train.early_stopping_patience: needs train.load_best_model_at_end=true; "
            "otherwise the later, worse weights would be kept"
        )
    if train.load_best_model_at_end and "no" in (train.eval_strategy, train.save_strategy):
        return "train.load_best_model_at_end: needs evaluations and checkpoints; set eval_strategy and save_strategy to steps"
    return None


def interval(steps: float, all_steps: int) -> int:
    """Steps from one log, evaluation or checkpoint to the next, as transformers' TrainerState.compute_steps has them.

    Args:
        steps: their number, or below 1 a share of all steps.
        all_steps: of the training.
    """
    return math.ceil(all_steps * steps) if steps < 1 else int(steps)
