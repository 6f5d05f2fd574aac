"""train: learns a LoRA adapter of the base model from the prepared rows, through peft and transformers' Trainer."""

import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import DataCollatorWithFlattening, PreTrainedModel, TrainingArguments, set_seed

from stages.lib.checkpoint import load_encoder, load_model
from stages.lib.edge.errors import InputError
from stages.lib.edge.outputs import read_jsonl, replacing, size_mb, write_json
from stages.lib.edge.paths import ADAPTER, BASE, LOSS_CURVES, METRICS, PREPARED
from stages.lib.edge.stage import run
from stages.lib.loss_curves import LossCurves
from stages.lib.padding_free import BY_EXAMPLE, PaddingFreeTrainer
from stages.lib.prompt import Prompt
from stages.lib.schema.adapter import Adapter
from stages.lib.schema.train import Train
from stages.lib.tokens import Encoder


@dataclass
class Sections:
    """What this stage reads of params.yaml."""

    adapter: Adapter
    train: Train
    seed: int


def main(cfg: Sections) -> str:
    """Trains models/adapter on data/prepared."""
    prompt = Prompt.load(PREPARED)
    encoder = load_encoder(BASE)
    examples = {
        split: encode(read_jsonl(PREPARED / f"{split}.jsonl"), encoder, prompt, cfg.train) for split in ("train", "validation")
    }
    model = with_adapter(load_base(cfg.train), cfg.adapter, cfg.seed)
    curves = LossCurves()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(model, examples, cfg.train, cfg.seed, curves, scratch)
        losses = fit(trainer)
    with replacing(ADAPTER) as partial:
        save_adapter(model, prompt, partial)
    with replacing(LOSS_CURVES) as partial:
        curves.write(partial)
    trainable, parameters = model.get_nb_trainable_parameters()
    shape = {"parameters": parameters, "trainable_parameters": trainable, "steps": trainer.state.global_step}
    write_json(METRICS / "train.json", {**shape, **losses})
    return f"{trainable / 1e6:.2f} of {parameters / 1e6:.0f} M parameters trained in {ADAPTER} ({size_mb(ADAPTER)} MB)"


def encode(rows: list[dict[str, Any]], encoder: Encoder, prompt: Prompt, train: Train) -> Dataset:
    """Rows as `input_ids` and `labels`."""
    return Dataset.from_list([encoder.example(row, prompt.source_max_len, train.completion_only_loss) for row in rows])


def load_base(train: Train) -> PreTrainedModel:
    """The base model, with the attention that suits joined examples where it runs."""
    attention = None if torch.cuda.is_available() else BY_EXAMPLE
    return load_model(BASE, dtype=torch.bfloat16 if train.bf16 else None, attn_implementation=attention)


def with_adapter(model: PreTrainedModel, adapter: Adapter, seed: int) -> PeftModel:
    """Freezes the model and adds an adapter, whose first weights depend on `seed` alone.

    Raises:
        InputError: adapter.target_modules names no module of the model.
    """
    modules = adapter.target_modules if isinstance(adapter.target_modules, str) else list(adapter.target_modules)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.r,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.lora_dropout,
        target_modules=modules,
    )
    linear = sorted({name.rsplit(".")[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)})
    set_seed(seed)  # before the weights are made, not after
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        raise InputError(f"adapter.target_modules: {modules} match nothing; the model has {', '.join(linear)}") from error
    unmatched = [] if isinstance(modules, str) else [name for name in modules if not matches(model, name)]
    if unmatched:  # peft is content when one of several matches
        raise InputError(f"adapter.target_modules: {unmatched} match nothing; the model has {', '.join(linear)}")
    return adapted


def matches(model: torch.nn.Module, name: str) -> bool:
    """Whether a module is called `name`, as peft compares them."""
    return any(key == name or key.endswith(f".{name}") for key, _ in model.named_modules())


def make_trainer(
    model: PeftModel, examples: dict[str, Dataset], train: Train, seed: int, curves: LossCurves, scratch: str
) -> PaddingFreeTrainer:
    """A trainer with the fields of `train` as its arguments."""
    given = {field.name: getattr(train, field.name) for field in fields(train) if field.name != "completion_only_loss"}
    given["train_sampling_strategy"] = train.train_sampling_strategy.value
    given["activation_checkpointing"] = given.pop("gradient_checkpointing")  # transformers 5.23's name for it
    if not len(examples["validation"]):
        given["eval_strategy"] = "no"
    try:
        arguments = TrainingArguments(
            output_dir=scratch, seed=seed, save_strategy="no", report_to="none", prediction_loss_only=True, **given
        )
    except ValueError as error:
        raise InputError(f"train: {str(error).splitlines()[0]}") from error
    return PaddingFreeTrainer(
        model=model,
        args=arguments,
        data_collator=DataCollatorWithFlattening(return_flash_attn_kwargs=not torch.cuda.is_available()),
        train_dataset=examples["train"],
        eval_dataset=examples["validation"] if len(examples["validation"]) else None,
        callbacks=[curves],
    )


def fit(trainer: PaddingFreeTrainer) -> dict[str, float]:
    """Trains, and returns the last losses."""
    losses = {"train_loss": trainer.train().training_loss}
    if trainer.eval_dataset is not None:
        last = [log for log in trainer.state.log_history if "eval_loss" in log and log["step"] == trainer.state.global_step]
        losses["eval_loss"] = last[0]["eval_loss"] if last else trainer.evaluate()["eval_loss"]
    return {name: round(value, 6) for name, value in losses.items()}


def save_adapter(model: PeftModel, prompt: Prompt, folder: Path) -> None:
    """Writes the adapter in peft's layout, with the prompt it was trained on."""
    for config in model.peft_config.values():
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)  # a set's order differs from run to run
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty card; ours is written by `report`
    prompt.save(folder)


if __name__ == "__main__":
    run("train", main, Sections, sys.argv[1:])
