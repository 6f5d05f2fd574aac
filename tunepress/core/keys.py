"""Keys of the configuration that there are not: what each is called now, or what was meant."""

import difflib
from collections.abc import Sequence

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
    "train.save_total_limit": "nothing in its place: the last checkpoint is kept, and the best where it is wanted",
    "train.warmup_ratio": "train.warmup_steps, where a value below 1 is a share of all steps",
}


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Says that there is no such key, and what its name is now or could be.

    Args:
        key: with its section, as `train.learning_rat`.
        known: the names there are in that section.
    """
    if key in FORMER:
        return f"unknown key {key}; use {FORMER[key]}"
    section, _, name = key.rpartition(".")
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {section}.{near[0]}?" if near and section else f"did you mean {near[0]}?" if near else ""
    return f"unknown key {key}; {meant or 'known here: ' + ', '.join(known)}"
