"""Makes the Trainer's arguments from the section `train`."""

from dataclasses import fields
from pathlib import Path

import torch
from transformers import TrainingArguments, get_scheduler
from transformers.utils import is_liger_kernel_available

from stages.train.launch import launched
from tunepress.config.train import INTERVALS, OURS, Train, interval
from tunepress.core.errors import InputError


def training_arguments(train: Train, seed: int, folder: Path, validated: bool, all_steps: int | None = None) -> TrainingArguments:
    """Converts the fields of `train` to the Trainer's arguments.

    Args:
        train: the section.
        seed: seed of the random numbers in training, such as dropout.
        folder: the folder for checkpoints.
        validated: whether there are validation rows.
        all_steps: number of training steps, for intervals that are a share of it; None if nothing is trained.

    Raises:
        InputError: transformers does not accept a value, or this machine does not support it.
    """
    trainer_fields = {field.name: getattr(train, field.name) for field in fields(train) if field.name not in OURS}
    trainer_fields["train_sampling_strategy"] = train.train_sampling_strategy.value
    trainer_fields["activation_checkpointing"] = trainer_fields.pop("gradient_checkpointing")  # the name in transformers 5.23
    on_gpu = torch.cuda.is_available()
    trainer_fields["fsdp_config"] = dict(train.fsdp_config)  # TrainingArguments adds keys to it
    if not validated:
        trainer_fields["eval_strategy"] = "no"
    if train.use_liger_kernel and not (on_gpu and is_liger_kernel_available()):
        raise InputError("train.use_liger_kernel: needs a GPU and the package liger-kernel; set it to false")
    try:
        arguments = TrainingArguments(
            output_dir=str(folder),
            seed=seed,
            report_to="none",
            metric_for_best_model="eval_loss",
            greater_is_better=False,
            restore_callback_states_from_checkpoint=True,
            include_num_input_tokens_seen="all",
            remove_unused_columns=False,
            use_cpu=not on_gpu,
            ddp_find_unused_parameters=False,
            ddp_broadcast_buffers=False,  # no buffer changes, and processes may run different numbers of forward passes
            ddp_backend="gloo" if launched() and not on_gpu else None,
            dataloader_pin_memory=on_gpu,
            **trainer_fields,
        )
    except (ValueError, ImportError) as error:
        raise InputError(f"train: {str(error).splitlines()[0]}") from error
    check_schedule(train)
    for name in INTERVALS:
        steps = getattr(arguments, name)
        if all_steps and steps:  # with a share, a resumed Trainer would warn that the number differs
            setattr(arguments, name, interval(steps, all_steps))
    if on_gpu and not launched():
        arguments._n_gpu = 1  # otherwise transformers splits the batch, which is one row, over all GPUs (DataParallel)
    return arguments


def check_schedule(train: Train) -> None:
    """Raises InputError unless the schedule accepts train.lr_scheduler_kwargs, which is tried with an unused weight."""
    unused = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    try:
        get_scheduler(train.lr_scheduler_type, unused, 1, 10, dict(train.lr_scheduler_kwargs))
    except (TypeError, ValueError) as error:
        message = str(error).splitlines()[0].replace("get_", "").replace("_schedule_with_warmup()", "")
        raise InputError(f"train.lr_scheduler_kwargs: {message} (train.lr_scheduler_type={train.lr_scheduler_type})") from error
