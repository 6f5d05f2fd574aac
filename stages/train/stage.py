"""train: trains an adapter of the base model on the prepared rows, with peft and transformers' Trainer.

With adapter.method=none it trains nothing, and the later stages build and measure the base model. An adapter that was trained
elsewhere is checked and copied.
"""

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftModel
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    TrainingArguments,
)
from transformers.utils.logging import disable_progress_bar

from stages.train import adapter as adapters
from stages.train.arguments import training_arguments
from stages.train.brought import write_brought
from stages.train.checkpoints import LogAtCheckpoints, checkpoint_folder, checkpoint_key, last_checkpoint
from stages.train.estimate import Plan, duration, peak_gpu_bytes, product_rate
from stages.train.last_layer import skip_unread_positions
from stages.train.launch import first, launch, let_fsdp_run_on_cpus, to_launch, use_all_cores
from stages.train.loss_curves import write_loss_curves
from stages.train.progress import FreeCoresCallback, Progress
from stages.train.sampler import SequenceSampler
from stages.train.trainer import BY_EXAMPLE, EMPTY, FlatteningCollator, PaddingFreeTrainer, attention_of, must_split
from tunepress.config.adapter import Adapter, Method
from tunepress.config.train import Train
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output, read_jsonl, size_mb, write_json
from tunepress.core.paths import ADAPTER, BASE, LOSS_CURVES, METRICS, PREPARED, TRAINING_ROWS, VALIDATION_ROWS
from tunepress.models.bnb_4bit import Quantization
from tunepress.models.hf_model import check, empty_model, load_encoder, load_model
from tunepress.models.layerwise_casting import in_sixteen_bits, load_in_float32
from tunepress.models.threads import DeterministicThreads
from tunepress.text.packing import Corpus, PackedSequence, group_by_sequence, token_count
from tunepress.text.prompt import Prompt


@dataclass
class Config:
    adapter: Adapter
    train: Train
    seed: int


def main(cfg: Config) -> str:
    """Trains models/adapter on data/prepared."""
    check(BASE)
    if cfg.adapter.method is Method.none or cfg.adapter.method.brought:
        return leave_untrained(cfg.adapter)
    use_all_cores()
    examples = read_examples(cfg.train)
    plan = make_plan(cfg, examples["train"], examples["validation"])
    if plan.split_examples and cfg.train.fsdp and max(map(len, examples["train"])) > 1:  # a process would wait forever
        raise InputError("train.fsdp: this architecture is trained one example at a time; set data.corpus_strategy=line-by-line")
    if to_launch(cfg.train.num_processes):
        # so that errors are printed once, not by each process
        training_arguments(cfg.train, cfg.seed, Path(), bool(examples["validation"]))
        plan.check_memory(cfg.train, cfg.adapter.method.quantized)
        launch("stages.train", sys.argv[1:], cfg.train.num_processes)
    if first():
        seconds = duration(plan.seconds(product_rate(torch.bfloat16 if cfg.train.bf16 else torch.float32)))
        print(f"train: {plan}, {seconds} here, {plan.check_memory(cfg.train, cfg.adapter.method.quantized)}", flush=True)
    else:
        disable_progress_bar()
    state = PartialState(cpu=not torch.cuda.is_available())
    with ExitStack() as stack:
        key = checkpoint_key(cfg, [BASE, PREPARED / "prompt.json", *prepared_files()]) if state.is_main_process else ""
        folder = stack.enter_context(checkpoint_folder(key))
        arguments = training_arguments(cfg.train, cfg.seed, folder, bool(examples["validation"]), plan.steps)
        model = adapters.with_adapter(load_base(cfg, casts=plan.casts), cfg.adapter, cfg.seed, BASE)
        initial = keep_initial(model, cfg.adapter, Path(stack.enter_context(TemporaryDirectory())))
        trainer = make_trainer(model, examples, cfg.train, arguments, plan)
        trainer.train(resume_from_checkpoint=last_checkpoint(folder))
        metrics = {"parameters": plan.parameters, "trainable_parameters": plan.trainable, **outcome(trainer)}
        write_outputs(trainer, cfg, initial, metrics)
        state.wait_for_everyone()
    return f"{plan.trainable / 1e6:.2f} M parameters trained in {ADAPTER} ({size_mb(ADAPTER)} MB){on_gpu()}"


def leave_untrained(adapter: Adapter) -> str:
    """Writes the outputs without a training: the prompt and an adapter that was trained elsewhere, no losses, no steps."""
    trained = 0
    with atomic_output(ADAPTER) as partial:
        partial.mkdir()
        if adapter.method.brought:
            trained = write_brought(adapter, partial)
        Prompt.load(PREPARED).save(partial)
    with atomic_output(LOSS_CURVES) as partial:
        write_loss_curves([], partial)
    parameters = sum(weight.numel() for weight in empty_model(BASE).parameters())
    write_json(METRICS / "train.json", {"parameters": parameters, "trainable_parameters": trained, "steps": 0})
    if adapter.method.brought:
        return f"{trained / 1e6:.2f} M parameters of {adapter.path or adapter.repo_id} in {ADAPTER} ({size_mb(ADAPTER)} MB)"
    return "nothing trained, because adapter.method is none"


def prepared_files() -> list[Path]:
    """The files of data/prepared that are read in addition to the prompt."""
    return [PREPARED / "corpus.json", TRAINING_ROWS, VALIDATION_ROWS]


def read_examples(train: Train) -> dict[str, list[PackedSequence]]:
    """The prepared rows as sequences of examples; each validation row is its own sequence, as for a deployed model."""
    prompt, corpus = Prompt.load(PREPARED), Corpus.load(PREPARED)
    encoder = load_encoder(BASE, prompt.eos_token_ids)
    padding = encoder.tokenizer.pad_token_id or 0

    def example(row: dict[str, Any]) -> dict[str, list[int]]:
        return encoder.encode_example(row, prompt.source_max_len, train.completion_only_loss)

    learned = group_by_sequence(read_jsonl(TRAINING_ROWS))
    return {
        "train": [corpus.sequence([example(row) for row in rows], padding) for rows in learned],
        "validation": [[example(row)] for row in read_jsonl(VALIDATION_ROWS)],
    }


def make_plan(cfg: Config, learned: list[PackedSequence], validated: list[PackedSequence] | None = None) -> Plan:
    """Plans the training; processes on a CPU share its memory, on GPUs each has its own."""
    sharing = 1 if torch.cuda.is_available() else cfg.train.num_processes
    outline = adapters.outline(BASE, cfg.adapter)
    return Plan.of(outline, learned, validated or [], cfg.adapter, cfg.train, sharing, in_sixteen_bits(BASE))


def load_base(cfg: Config, *, casts: bool = False) -> PreTrainedModel:
    """Loads the base model with an attention for joined rows, in 4 bits if the adapter's method needs it, or in 16."""
    dtype = torch.bfloat16 if cfg.train.bf16 else torch.float32
    quantization = Quantization.of(cfg.adapter, cfg.train.bf16)
    options: dict[str, Any] = {"attn_implementation": attention_of(empty_model(BASE), cfg.train)}
    if quantization:
        compute = cfg.adapter.bnb_4bit_compute_dtype
        options["quantization_config"] = quantization.config(getattr(torch, compute) if compute else dtype)
    try:
        if quantization or cfg.train.bf16 or torch.cuda.is_available():
            return load_model(BASE, dtype=dtype, **options)
        return load_in_float32(BASE, casts=casts, **options)
    except ValueError as error:  # from transformers, for Gemma 2, whose attention is capped
        if "attention implementation" not in str(error):
            raise
        name = cfg.train.attn_implementation
        raise InputError(f"train.attn_implementation: {name} cannot compute this model's attention; set eager") from error


def keep_initial(model: PeftModel, adapter: Adapter, scratch: Path) -> Path | None:
    """Saves the adapter before training, for the initialisations that take it out of the base model's weights."""
    if not adapters.moves_the_base(adapter.init_lora_weights):
        return None
    model.save_pretrained(scratch / "initial")
    return scratch / "initial"


def make_trainer(
    model: PeftModel,
    examples: dict[str, list[PackedSequence]],
    train: Train,
    arguments: TrainingArguments,
    plan: Plan | None = None,
) -> PaddingFreeTrainer:
    """Makes a trainer that joins examples, shows its progress and can be resumed."""
    split_examples = must_split(model.get_base_model())
    if not split_examples:  # a checkpointed layer would skip the positions that only the last example does not need
        skip_unread_positions(model.get_base_model())
    if not torch.cuda.is_available():
        DeterministicThreads(model)
    lengths = list(map(token_count, examples["train"]))
    sampler = SequenceSampler(
        lengths, train.train_sampling_strategy, train.data_seed, arguments.train_batch_size, arguments.world_size
    )
    if train.fsdp:
        let_fsdp_run_on_cpus()
    attention = model.config._attn_implementation
    trainer = PaddingFreeTrainer(
        sampler=sampler,
        split_examples=split_examples,
        model=model,
        args=arguments,
        data_collator=FlatteningCollator(
            attention.startswith((BY_EXAMPLE, "flash")), on_host=split_examples or attention == BY_EXAMPLE
        ),
        train_dataset=[*examples["train"], EMPTY],
        eval_dataset=examples["validation"] or None,
        callbacks=[sampler.callback(), LogAtCheckpoints()],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress(plan))
    if train.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(train.early_stopping_patience, train.early_stopping_threshold))
    trainer.add_callback(FreeCoresCallback())
    return trainer


def outcome(trainer: PaddingFreeTrainer) -> dict[str, Any]:
    """Steps and losses, computed from the log: the same whether or not the run was resumed."""
    state = trainer.state
    logged = [(log["step"], log["loss"]) for log in state.log_history if "loss" in log]
    before = [0, *(step for step, _ in logged)]
    total = sum(loss * (step - earlier) for earlier, (step, loss) in zip(before, logged, strict=False))
    metrics = {"steps": state.global_step, "train_loss": round(total / state.global_step, 6)}
    if trainer.eval_dataset is not None:
        losses = {log["step"]: log["eval_loss"] for log in state.log_history if "eval_loss" in log}
        best = state.best_global_step if trainer.args.load_best_model_at_end else None
        loss = losses[best] if best else losses.get(state.global_step) or trainer.evaluate()["eval_loss"]
        metrics |= {"eval_loss": round(loss, 6)} | ({"best_step": best} if best else {})
    return metrics


def write_outputs(trainer: PaddingFreeTrainer, cfg: Config, initial: Path | None, metrics: dict[str, Any]) -> None:
    """Writes the adapter, its prompt, the loss curves and the metrics, in the main process only."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    full_state: dict[str, Any] | None = get_model_state_dict(trainer.model, options=options) if trainer.is_fsdp_enabled else None
    if not trainer.accelerator.is_main_process:
        return
    with atomic_output(ADAPTER) as partial:
        adapters.save(trainer.accelerator.unwrap_model(trainer.model), full_state, initial, partial)
        if quantization := Quantization.of(cfg.adapter, cfg.train.bf16):
            quantization.save(partial)
        Prompt.load(PREPARED).save(partial)
    with atomic_output(LOSS_CURVES) as partial:
        write_loss_curves(trainer.state.log_history, partial)
    write_json(METRICS / "train.json", metrics)


def on_gpu() -> str:
    """The peak memory of the GPU in words; empty without one."""
    return f", GPU peak {peak_gpu_bytes() / 1e9:.2f} GB" if peak_gpu_bytes() else ""
