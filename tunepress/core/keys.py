"""Keys of the configuration: nested ones as dotted names, and what an unknown one is called now or could mean."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

# What Olive's examples, transformers before version 5 and this project before its streaming merge call it.
FORMER = {
    "adapter.alpha": "adapter.lora_alpha",
    "adapter.compute_dtype": "adapter.bnb_4bit_compute_dtype",
    "adapter.double_quant": "adapter.bnb_4bit_use_double_quant",
    "adapter.lora_r": "adapter.r",
    "adapter.quant_type": "adapter.bnb_4bit_quant_type",
    "adapter.use_dora": "adapter.method=dora",
    "adapter.use_rslora": "adapter.method=rslora",
    "data.max_seq_len": "data.source_max_len",
    "data.strategy": "data.corpus_strategy",
    "evaluate.gate": "gate, a section of its own",
    "evaluate.gate.max_drop": "gate.max_drop",
    "evaluate.gate.max_invalid_rate": "gate.max_invalid_rate",
    "evaluate.gate.max_latency_ratio": "gate.max_latency_ratio",
    "evaluate.gate.max_size_mb": "gate.max_size_mb",
    "evaluate.gate.max_tokenized_differently": "gate.max_tokenized_differently",
    "evaluate.gate.min_gain": "gate.min_gain",
    "evaluate.gate.min_top1_agreement": "gate.min_top1_agreement",
    "merge.max_shard_size": "nothing in its place: the merged model's files are cut as the base model's are",
    "train.activation_checkpointing": "train.gradient_checkpointing",
    "train.eval_dataset_size": "data.eval_dataset_size",
    "train.evaluation_strategy": "train.eval_strategy",
    "train.group_by_length": "train.train_sampling_strategy=group_by_length",
    "train.overwrite_output_dir": "nothing in its place: a run always replaces its outputs",
    "train.per_gpu_train_batch_size": "train.per_device_train_batch_size",
    "train.save_total_limit": "nothing in its place: the last checkpoint is kept, with load_best_model_at_end the best too",
    "train.warmup_ratio": "train.warmup_steps, where a value below 1 is a share of all steps",
}


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping of dotted keys. Lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        flat |= flatten(value, f"{key}.") if isinstance(value, Mapping) and value else {key: value}
    return flat


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Says that there is no such key, and what its name is now or could be.

    Args:
        key: with its group, as `train.learning_rat`.
        known: the names in that group.
    """
    if key in FORMER:
        return f"unknown key {key}; use {FORMER[key]}"
    group, _, name = key.rpartition(".")
    near = difflib.get_close_matches(name, known, n=1)
    if not near:
        return f"unknown key {key}; known here: {', '.join(known)}"
    return f"unknown key {key}; did you mean {f'{group}.' if group else ''}{near[0]}?"
