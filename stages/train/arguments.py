"""The Trainer's arguments, of the section `train`."""

from dataclasses import fields
from pathlib import Path

import torch
from transformers import TrainingArguments, get_scheduler
from transformers.utils import is_liger_kernel_available

from stages.train.launch import launched
from tunepress.config.train import INTERVALS, OURS, Train, interval
from tunepress.core.errors import InputError


def training_arguments(train: Train, seed: int, folder: Path, validated: bool, all_steps: int | None = None) -> TrainingArguments:
    """The fields of `train` as the Trainer's arguments.

    Args:
        train: what they are taken from.
        seed: of what training itself draws, dropout for one.
        folder: of the checkpoints.
        validated: whether there are validation rows.
        all_steps: of the training; None where nothing is trained, and shares of it stay shares.

    Raises:
        InputError: a value that transformers does not take, or that this machine cannot do.
    """
    given = {field.name: getattr(train, field.name) for field in fields(train) if field.name not in OURS}
    given["train_sampling_strategy"] = train.train_sampling_strategy.value
    given["activation_checkpointing"] = given.pop("gradient_checkpointing")  # transformers 5.23's name for it
    on_gpu = torch.cuda.is_available()
    if train.fsdp_config.get("cpu_offload"):  # wants a backend for both devices, and could not be tried
        raise InputError("train.fsdp_config.cpu_offload: not supported; leave it out, adapter=qlora needs less memory")
    given["fsdp_config"] = dict(train.fsdp_config)  # which TrainingArguments fills in
    if not validated:
        given["eval_strategy"] = "no"
    if train.use_liger_kernel and not (on_gpu and is_liger_kernel_available()):
        raise InputError("train.use_liger_kernel: wants a GPU and the package liger-kernel; set it to false")
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
            ddp_broadcast_buffers=False,  # training changes none, and processes may differ in forward passes a step
            ddp_backend="gloo" if launched() and not on_gpu else None,
            dataloader_pin_memory=on_gpu,
            **given,
        )
    except (ValueError, ImportError) as error:
        raise InputError(f"train: {str(error).splitlines()[0]}") from error
    check_schedule(train)
    for name in INTERVALS:
        if all_steps and (steps := getattr(arguments, name)):  # with a share, a resumed Trainer would warn of the other number
            setattr(arguments, name, interval(steps, all_steps))
    if on_gpu and not launched():
        arguments._n_gpu = 1  # or transformers cuts the batch, which is one row, over all GPUs (DataParallel)
    return arguments


def check_schedule(train: Train) -> None:
    """Raises InputError unless the schedule takes train.lr_scheduler_kwargs, by making it once for a weight of no use."""
    unused = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    try:
        get_scheduler(train.lr_scheduler_type, unused, 1, 10, dict(train.lr_scheduler_kwargs))
    except (TypeError, ValueError) as error:
        said = str(error).splitlines()[0].replace("get_", "").replace("_schedule_with_warmup()", "")
        raise InputError(f"train.lr_scheduler_kwargs: {said} (train.lr_scheduler_type={train.lr_scheduler_type})") from error
