"""`train`: how the adapter is trained, in the words of transformers' TrainingArguments."""

from dataclasses import dataclass
from enum import Enum


class SamplingStrategy(Enum):
    """In which order rows are learned."""

    random = "random"
    sequential = "sequential"
    group_by_length = "group_by_length"


@dataclass
class Train:
    """Fields of TrainingArguments of the same names; `completion_only_loss` is trl's name for the same choice."""

    completion_only_loss: bool
    data_seed: int
    num_train_epochs: float
    max_steps: int
    per_device_train_batch_size: int
    per_device_eval_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    learning_rate: float
    lr_scheduler_type: str
    warmup_steps: float
    weight_decay: float
    optim: str
    adam_beta1: float
    adam_beta2: float
    max_grad_norm: float
    bf16: bool
    train_sampling_strategy: SamplingStrategy
    logging_steps: int
    eval_strategy: str
    eval_steps: int | None
