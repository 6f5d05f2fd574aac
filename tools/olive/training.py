"""The passes that train an adapter: LoRA, QLoRA, DoRA, LoftQ."""

import dataclasses
from typing import Any

from tools.olive.document import Leaf
from tools.olive.fate import Fate, Line, Rule, only, otherwise, refused, ruled, taken, to
from tunepress.config.train import Train
from tunepress.core.errors import InputError

METHODS = ("lora", "qlora", "dora", "loftq")  # pass types in small letters; groups of conf/adapter
QUANTIZED = ("qlora", "loftq")
OUTPUTS = otherwise("a run always replaces its outputs in models/ and metrics/")
WHOLE_LAYERS = "an adapter of low rank alone can be merged and built"


def share(value: Any) -> Fate:
    """The rule of `eval_dataset_size`, a share or a number of rows."""
    if isinstance(value, int | float) and value >= 1:
        return refused("a number of rows; data.eval_dataset_size is a share of them")
    return taken("data.eval_dataset_size", 0 if value is None else value)


def whole(key: str) -> Rule:
    """The rule of a whole number that Olive allows to be written 16.0."""
    return lambda value: taken(key, int(value) if isinstance(value, float) and value.is_integer() else value)


def dtype(value: Any) -> Fate:
    """The rule of `torch_dtype`."""
    if value in (None, "bfloat16", "float32"):
        return taken("train.bf16", value != "float32")
    return refused("train.bf16 is true or false")


def sampling(value: Any) -> Fate:
    """The rule of `group_by_length`."""
    return taken("train.train_sampling_strategy", "group_by_length" if value else "random")


ADAPTER: dict[str, Rule] = {
    "r": whole("adapter.r"),
    "lora_r": whole("adapter.r"),
    "alpha": whole("adapter.lora_alpha"),
    "lora_alpha": whole("adapter.lora_alpha"),
    "lora_dropout": to("adapter.lora_dropout"),
    "target_modules": lambda value: to_modules(value),
    "bias": only("none", "no bias is trained", WHOLE_LAYERS),
    "modules_to_save": only([], "only the adapter is trained", WHOLE_LAYERS),
    "torch_dtype": dtype,
    "allow_tf32": to("train.tf32"),
    "device_map": otherwise("train.num_processes and train.fsdp spread a model"),
    "ephemeral_gpu_offload": only(False, "nothing is moved off the GPU", "train.fsdp spreads a model that is too large"),
    "use_ort_trainer": only(False, "transformers' Trainer trains", "transformers' Trainer trains"),
    "ortmodule_onnx_opset_version": otherwise("transformers' Trainer trains"),
    "train_data_config": otherwise("an experiment has one section `data`"),
    "eval_data_config": refused("validation rows are a share of the training rows, data.eval_dataset_size"),
    "eval_dataset_size": share,
}
NOT_QUANTIZED = otherwise("a LoRA pass holds no weights in 4 bits, in Olive neither")
PLAIN: dict[str, Rule] = {"double_quant": NOT_QUANTIZED, "quant_type": NOT_QUANTIZED, "compute_dtype": NOT_QUANTIZED}
BITSANDBYTES: dict[str, Rule] = {
    "double_quant": to("adapter.bnb_4bit_use_double_quant"),
    "quant_type": to("adapter.bnb_4bit_quant_type"),
    "compute_dtype": to("adapter.bnb_4bit_compute_dtype"),
    "save_quant_config": otherwise("merge.base=dequantized keeps the weights that were trained on"),
    "loftq_iter": only(1, "adapter.init_lora_weights=loftq", "the first weights take one round"),
}
ARGUMENTS: dict[str, Rule] = {
    **{field.name: to(f"train.{field.name}") for field in dataclasses.fields(Train)},
    "seed": to("seed"),
    "evaluation_strategy": to("train.eval_strategy"),
    "warmup_ratio": to("train.warmup_steps"),
    "group_by_length": sampling,
    "report_to": only("none", "metrics/ is what DVC shows", "metrics/ is what DVC shows; `dvc exp push` shares it"),
    "output_dir": OUTPUTS,
    "overwrite_output_dir": OUTPUTS,
    "save_total_limit": otherwise("the last checkpoint is kept, and the best where it is wanted"),
    "resume_from_checkpoint": only("", "a killed run goes on by itself", "a run goes on from its own checkpoint alone"),
    "deepspeed": only(False, "train.fsdp spreads a model", "train.fsdp=true spreads a model"),
    "fp16": only(False, "train.bf16", "Olive ignores it too; train.bf16 halves the memory"),
    "remove_unused_columns": otherwise("there are none"),
    "use_module_with_loss": only(False, "transformers' Trainer trains", "transformers' Trainer trains"),
}


def lines(method: str, leaves: list[Leaf]) -> list[Line]:
    """The fate of each field of a pass that trains, without its type.

    Raises:
        InputError: its rows stand in it, and not in data_configs.
    """
    inside = next((leaf.path for leaf in leaves if leaf.name.startswith("train_data_config.")), None)
    if inside:
        raise InputError(f"{inside}: rows that stand in the pass; put them into data_configs, and their name here")
    rules = ADAPTER | (BITSANDBYTES if method in QUANTIZED else PLAIN)
    rules |= {f"training_args.{name}": rule for name, rule in ARGUMENTS.items()}
    if any(leaf.name == "training_args" for leaf in leaves):
        rules["training_args"] = otherwise("Olive's defaults are written out")
    return ruled([schedule(leaf, rules) for leaf in leaves], rules, "peft and transformers' Trainer get no such argument here")


def schedule(leaf: Leaf, rules: dict[str, Rule]) -> Leaf:
    """The same field; one of `lr_scheduler_kwargs` gets a rule by its name, which depends on the schedule."""
    name = leaf.name.removeprefix("training_args.")
    if name.startswith("lr_scheduler_kwargs."):
        rules[leaf.name] = to(f"train.{name}")
    return leaf


def to_modules(value: Any) -> Fate:
    """The rule of `target_modules`."""
    return taken("adapter.target_modules", value) if value else otherwise("adapter.target_modules=all-linear")
