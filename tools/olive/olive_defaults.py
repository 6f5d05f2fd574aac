"""What Olive takes for what a pass that trains does not say."""

from collections.abc import Mapping
from typing import Any

from tools.olive.fate import Value
from tools.olive.training import QUANTIZED

# Of passes/pytorch/lora.py of 0.6.2, and of 0.13.0 over transformers' own.
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
FORMER = BOTH | {
    "adapter.lora_dropout": 0.0,
    "train.max_steps": 10000,
    "train.per_device_train_batch_size": 1,
    "train.per_device_eval_batch_size": 1,
    "train.gradient_accumulation_steps": 16,
    "train.logging_steps": 10,
    "train.eval_strategy": "no",
    "train.train_sampling_strategy": "group_by_length",
}
TODAY = BOTH | {
    "adapter.lora_dropout": 0.05,
    "train.per_device_train_batch_size": 8,
    "train.per_device_eval_batch_size": 8,
    "train.logging_steps": 500,
}
QUANTIZATION = {"adapter.bnb_4bit_use_double_quant": False, "adapter.bnb_4bit_quant_type": "nf4"}
VALIDATION = {"eval_dataset_size", "eval_data_config"}  # fields that ask for validation rows
FORMER_NAMES = {"lora_r", "lora_alpha", "eval_dataset_size", "evaluation_strategy", "use_ort_trainer"}


def defaults(method: str, given: Mapping[str, Any], names: set[str]) -> list[Value]:
    """What Olive takes for what is not written.

    Args:
        method: the pass.
        given: what is written, by key.
        names: of the fields that are written, which tell the generation.
    """
    former = bool(FORMER_NAMES & names)
    known = (FORMER if former else TODAY) | (QUANTIZATION if method == "qlora" else {})
    version = "0.6" if former else "0.13"
    if not VALIDATION & names and not given.get("train.load_best_model_at_end"):
        known |= {"data.eval_dataset_size": 0}
    values = [Value(key, value, f"Olive {version}'s default") for key, value in known.items() if key not in given]
    if method not in QUANTIZED and "adapter.target_modules" not in given:
        values.append(
            Value("adapter.target_modules", "all-linear", "Olive takes those that it or peft lists for the architecture")
        )
    if given.get("train.load_best_model_at_end") and "train.save_steps" not in given:
        steps = given.get("train.eval_steps") or given.get("train.logging_steps") or known["train.logging_steps"]
        values.append(Value("train.save_steps", steps, "load_best_model_at_end wants a checkpoint at each evaluation"))
    return values
