"""The passes that train an adapter: LoRA, QLoRA, DoRA, LoftQ, and their defaults in Olive."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tools.olive.document import Leaf
from tools.olive.mapping import FieldMapping, MappedField, Rule, Value, covered, map_fields, mapped_to, maps_to, only, unsupported
from tunepress.config.train import Train
from tunepress.core.errors import InputError

METHODS = ("lora", "qlora", "dora", "loftq")  # types of passes in lower case; groups of conf/adapter
QUANTIZED = ("qlora", "loftq")
OUTPUTS = covered("a run always replaces its outputs in models/ and metrics/")
WHOLE_LAYERS = "only low-rank adapters can be merged and built"


def share(value: Any) -> FieldMapping:
    """The rule for `eval_dataset_size`, a share or a number of rows."""
    if isinstance(value, int | float) and value >= 1:
        return unsupported("a number of rows; data.eval_dataset_size is a share")
    return mapped_to("data.eval_dataset_size", 0 if value is None else value)


def whole_number(key: str) -> Rule:
    """The rule for a whole number, which Olive also accepts as 16.0."""
    return lambda value: mapped_to(key, int(value) if isinstance(value, float) and value.is_integer() else value)


def dtype(value: Any) -> FieldMapping:
    """The rule for `torch_dtype`."""
    if value in (None, "bfloat16", "float32"):
        return mapped_to("train.bf16", value != "float32")
    return unsupported("train.bf16 is true or false")


def sampling(value: Any) -> FieldMapping:
    """The rule for `group_by_length`."""
    return mapped_to("train.train_sampling_strategy", "group_by_length" if value else "random")


def when(key: str) -> Rule:
    """The rule for one of the strategies; YAML reads the word `no` as false."""
    return lambda value: mapped_to(key, "no" if value is False else value)


ADAPTER: dict[str, Rule] = {
    "r": whole_number("adapter.r"),
    "lora_r": whole_number("adapter.r"),
    "alpha": whole_number("adapter.lora_alpha"),
    "lora_alpha": whole_number("adapter.lora_alpha"),
    "lora_dropout": maps_to("adapter.lora_dropout"),
    "target_modules": lambda value: to_modules(value),
    "bias": only("none", "no bias is trained", WHOLE_LAYERS),
    "modules_to_save": only([], "only the adapter is trained", WHOLE_LAYERS),
    "torch_dtype": dtype,
    "allow_tf32": maps_to("train.tf32"),
    "device_map": covered("train.num_processes and train.fsdp distribute a model"),
    "ephemeral_gpu_offload": only(False, "nothing is moved off the GPU", "train.fsdp distributes a model that is too large"),
    "use_ort_trainer": only(False, "transformers' Trainer trains", "transformers' Trainer trains"),
    "ortmodule_onnx_opset_version": covered("transformers' Trainer trains"),
    "train_data_config": covered("an experiment has one section `data`"),
    "eval_data_config": unsupported("validation rows are a share of the training rows, data.eval_dataset_size"),
    "eval_dataset_size": share,
}
NOT_QUANTIZED = covered("a LoRA pass has no 4-bit weights, in Olive either")
PLAIN: dict[str, Rule] = {"double_quant": NOT_QUANTIZED, "quant_type": NOT_QUANTIZED, "compute_dtype": NOT_QUANTIZED}
BITSANDBYTES: dict[str, Rule] = {
    "double_quant": maps_to("adapter.bnb_4bit_use_double_quant"),
    "quant_type": maps_to("adapter.bnb_4bit_quant_type"),
    "compute_dtype": maps_to("adapter.bnb_4bit_compute_dtype"),
    "save_quant_config": covered("merge.base=dequantized keeps the weights that were trained on"),
    "loftq_iter": only(1, "adapter.init_lora_weights=loftq", "the initial weights take one iteration"),
}
ARGUMENTS: dict[str, Rule] = {
    **{field.name: maps_to(f"train.{field.name}") for field in dataclasses.fields(Train)},
    "seed": maps_to("seed"),
    "evaluation_strategy": when("train.eval_strategy"),
    "eval_strategy": when("train.eval_strategy"),
    "save_strategy": when("train.save_strategy"),
    "warmup_ratio": maps_to("train.warmup_steps"),
    "group_by_length": sampling,
    "report_to": only("none", "metrics/ is what DVC shows", "metrics/ is what DVC shows; `dvc exp push` shares it"),
    "output_dir": OUTPUTS,
    "overwrite_output_dir": OUTPUTS,
    "save_total_limit": covered("the last checkpoint is kept, and the best one if it is needed"),
    "resume_from_checkpoint": only("", "a killed run resumes automatically", "a run only resumes from its own checkpoint"),
    "deepspeed": only(False, "train.fsdp distributes a model", "train.fsdp=true distributes a model"),
    "fp16": only(False, "train.bf16", "Olive ignores it too; train.bf16 halves the memory"),
    "remove_unused_columns": covered("there are none"),
    "use_module_with_loss": only(False, "transformers' Trainer trains", "transformers' Trainer trains"),
}


def map_training(method: str, leaves: list[Leaf]) -> list[MappedField]:
    """Maps the fields of a pass that trains, except its type.

    Raises:
        InputError: its rows are in the pass instead of data_configs.
    """
    inside = next((leaf.path for leaf in leaves if leaf.name.startswith("train_data_config.")), None)
    if inside:
        raise InputError(f"{inside}: rows in a pass; move them to data_configs, and refer to them by name")
    rules = ADAPTER | (BITSANDBYTES if method in QUANTIZED else PLAIN)
    rules |= {f"training_args.{name}": rule for name, rule in ARGUMENTS.items()}
    if any(leaf.name == "training_args" for leaf in leaves):
        rules["training_args"] = covered("Olive's defaults are written out")
    return map_fields([schedule(leaf, rules) for leaf in leaves], rules, "not an argument of peft or transformers' Trainer here")


def schedule(leaf: Leaf, rules: dict[str, Rule]) -> Leaf:
    """Returns the field; adds a rule for one of `lr_scheduler_kwargs`, whose names depend on the schedule."""
    name = leaf.name.removeprefix("training_args.")
    if name.startswith("lr_scheduler_kwargs."):
        rules[leaf.name] = maps_to(f"train.{name}")
    return leaf


def to_modules(value: Any) -> FieldMapping:
    """The rule for `target_modules`."""
    return mapped_to("adapter.target_modules", value) if value else covered("adapter.target_modules=all-linear")


# From passes/pytorch/lora.py of 0.6.2, and of 0.13.0 over transformers' defaults.
BOTH = {
    "adapter.r": 64,
    "adapter.lora_alpha": 16,
    "train.bf16": True,
    "train.gradient_checkpointing": True,
    "train.learning_rate": 2e-4,
    "train.lr_scheduler_type": "constant",
    "train.warmup_steps": 0.03,
    "train.num_train_epochs": 3,
    "train.eval_steps": None,
    "train.data_seed": 42,
    "seed": 42,
}
OLD = BOTH | {
    "adapter.lora_dropout": 0.0,
    "train.max_steps": 10000,
    "train.per_device_train_batch_size": 1,
    "train.per_device_eval_batch_size": 1,
    "train.gradient_accumulation_steps": 16,
    "train.logging_steps": 10,
    "train.eval_strategy": "no",
    "train.train_sampling_strategy": "group_by_length",
}
NEW = BOTH | {
    "adapter.lora_dropout": 0.05,
    "train.per_device_train_batch_size": 8,
    "train.per_device_eval_batch_size": 8,
    "train.logging_steps": 500,
}
QUANTIZATION = {"adapter.bnb_4bit_use_double_quant": False, "adapter.bnb_4bit_quant_type": "nf4"}
VALIDATION = {"eval_dataset_size", "eval_data_config"}  # fields that request validation rows
OLD_NAMES = {"lora_r", "lora_alpha", "eval_dataset_size", "evaluation_strategy", "use_ort_trainer"}


def defaults(method: str, chosen: Mapping[str, Any], names: set[str]) -> list[Value]:
    """Olive's defaults for the fields that the configuration does not have.

    Args:
        method: the pass.
        chosen: values of the configuration by key.
        names: of the fields in the configuration, which depend on the version of Olive.
    """
    old = bool(OLD_NAMES & names)
    known = (OLD if old else NEW) | (QUANTIZATION if method == "qlora" else {})
    version = "0.6" if old else "0.13"
    if not VALIDATION & names and not chosen.get("train.load_best_model_at_end"):
        known |= {"data.eval_dataset_size": 0}
    values = [Value(key, value, f"Olive {version}'s default") for key, value in known.items() if key not in chosen]
    if method not in QUANTIZED and "adapter.target_modules" not in chosen:
        values.append(
            Value("adapter.target_modules", "all-linear", "Olive uses those that it or peft lists for the architecture")
        )
    if chosen.get("train.load_best_model_at_end") and "train.save_steps" not in chosen:
        steps = chosen.get("train.eval_steps") or chosen.get("train.logging_steps") or known["train.logging_steps"]
        values.append(Value("train.save_steps", steps, "load_best_model_at_end needs a checkpoint at each evaluation"))
    return values
