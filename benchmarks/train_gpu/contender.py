"""The tasks of benchmarks.train_gpu: `device` makes the model and measures the device, `measure` trains a contender."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

import benchmarks.train_gpu.attention  # noqa: F401  (registers it)
from benchmarks.models import SHAPES
from benchmarks.processes import ROOT
from benchmarks.train_gpu.rows import PAD, padded_count, sequences
from stages.train import adapter as adapters
from stages.train import stage as train
from tunepress.core.paths import BASE
from tunepress.core.stage import peak_memory_mb
from tunepress.text.packing import PackedSequence, token_count
from tunepress.text.tokenizer import IGNORE_INDEX

OUT_OF_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
REPEATS = 10


@dataclass(frozen=True)
class Job:
    """What `measure` has to do, in the words of the command line."""

    contender: str
    shape: str
    steps: int
    warmup: int
    batch: int
    compile: bool
    liger: bool
    attn: str

    @property
    def plain(self) -> bool:
        """Whether the Trainer is transformers' own."""
        return self.contender.startswith("trainer-")


class Clock(TrainerCallback):
    """Measures the time from the end of the warm-up to the end of the last step, and the peak memory of all steps."""

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.start = self.end = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called when everything is loaded."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self.start = now()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == self.warmup:
            self.start = now()
        if state.global_step == state.max_steps:
            self.end = now()


@dataclass
class Padder:
    """The collator of the plain Trainer: the rows of some sequences as one batch, padded to its longest row."""

    def __call__(self, batch: list[PackedSequence]) -> dict[str, torch.Tensor]:
        """`input_ids`, `labels` and `attention_mask` [rows, tokens]."""
        rows = [example for sequence in batch for example in sequence]
        longest = max(len(row["input_ids"]) for row in rows)
        fillings = {"input_ids": PAD, "labels": IGNORE_INDEX, "attention_mask": 0}
        padded: dict[str, list[list[int]]] = {name: [] for name in fillings}
        for row in rows:
            for name, filling in fillings.items():
                values = row.get(name, [1] * len(row["input_ids"]))
                padded[name].append(values + [filling] * (longest - len(values)))
        return {name: torch.tensor(values) for name, values in padded.items()}


def measure(**settings: Any) -> dict[str, Any]:
    """Figures of a `Job` in the working folder, or `failed` where the device's memory is too small."""
    try:
        return train_contender(Job(**settings))
    except Exception as error:
        if any(sign in str(error) for sign in OUT_OF_MEMORY):
            return {"failed": OUT_OF_MEMORY[0]}
        raise


def device(shape: str) -> dict[str, Any]:
    """Writes a random model to models/base, in the precision that it is trained in, and measures the device."""
    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_gpu else torch.float32
    config = AutoConfig.for_model(**SHAPES[shape].config, pad_token_id=PAD, bos_token_id=PAD, eos_token_id=PAD)
    set_seed(0)
    with torch.device("cuda" if on_gpu else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(BASE, max_shard_size="4GB")
    parameters = model.num_parameters()
    del model  # the matrix product needs room
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "driver": driver() if on_gpu else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "parameters": parameters,
        "matrix_dtype": str(dtype).removeprefix("torch."),
        "matrix_tflops": round(matrix_tflops(SHAPES[shape].matrix, dtype), 4),
    }


def driver() -> str:
    """The version of the GPU's driver."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def matrix_tflops(size: int, dtype: torch.dtype) -> float:
    """TFLOP/s of a product of two square matrices, the best of several."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: left @ right) for _ in range(REPEATS)) / 1e12


def seconds(work: Callable[[], Any]) -> float:
    """How long `work` takes, by the GPU's own clock where there is one."""
    if not torch.cuda.is_available():
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000


def now() -> float:
    """The time, after the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def train_contender(job: Job) -> dict[str, Any]:
    """Trains a contender and returns its figures."""
    cfg = config(job)
    learned = sequences(SHAPES[job.shape], job.steps * job.batch, cfg.seed)
    arguments = train.training_arguments(cfg.train, cfg.seed, Path("trained"), validated=False)
    model = plain_model(cfg) if job.plain else adapters.with_adapter(train.load_base(cfg), cfg.adapter, cfg.seed, BASE)
    trainer = make_trainer(job, model, learned, cfg, arguments)
    clock = Clock(job.warmup)
    trainer.add_callback(clock)
    trainer.train()
    batches = [learned[start : start + job.batch] for start in range(0, len(learned), job.batch)]
    tokens = sum(map(token_count, learned))
    computed = sum(map(padded_count, batches)) if job.plain else tokens
    speed = sum(map(token_count, learned[job.warmup * job.batch :])) / (clock.end - clock.start)
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    flops = flops_a_token(model)
    return {
        "tokens_per_second": round(speed, 1),
        "seconds_per_step": round((clock.end - clock.start) / (job.steps - job.warmup), 4),
        "padding": round(1 - tokens / computed, 4),
        "flops_per_token": flops,
        "model_tflops": round(speed * flops / 1e12, 6),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else peak_memory_mb() / 1000, 2),
        "first_loss": round(losses[0], 6),
        "last_loss": round(losses[-1], 6),
    }


def config(job: Job) -> train.Config:
    """The recipe of a contender: the defaults of conf/ with what is right for the device."""
    quantized, on_gpu = "qlora" in job.contender, torch.cuda.is_available()
    rank = SHAPES[job.shape].rank
    values: Any = {
        "adapter": OmegaConf.merge(
            OmegaConf.load(ROOT / "conf/adapter/lora.yaml"),
            {"method": "qlora", "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True} if quantized else {},
            {"r": rank, "lora_alpha": rank, "target_modules": "all-linear"},
        ),
        "train": OmegaConf.merge(
            OmegaConf.load(ROOT / "conf/train/default.yaml"),
            {
                "max_steps": job.steps,
                "per_device_train_batch_size": job.batch,
                "gradient_checkpointing": job.contender.endswith("-checkpointing"),
                "learning_rate": 1e-4,
                "optim": "adamw_torch_fused",
                "bf16": on_gpu,
                "tf32": on_gpu,
                "torch_compile": job.compile,
                "use_liger_kernel": job.liger,
                "attn_implementation": "sdpa" if job.plain else job.attn,
                "train_sampling_strategy": "sequential",
                "logging_steps": 1,
                "eval_strategy": "no",
                "save_strategy": "no",
            },
        ),
        "seed": 0,
    }
    cfg = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(train.Config), values))
    assert isinstance(cfg, train.Config)
    return cfg


def plain_model(cfg: train.Config) -> PeftModel:
    """The model with the same adapter of the same initial weights, in peft's own layers."""
    model = train.load_base(cfg)
    lora = {name: getattr(cfg.adapter, name) for name in ("r", "lora_alpha", "target_modules")}
    set_seed(cfg.seed)
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora))


def make_trainer(
    job: Job, model: PeftModel, learned: list[PackedSequence], cfg: train.Config, arguments: TrainingArguments
) -> Trainer:
    """The stage's trainer, or transformers' own on the rows of the same sequences."""
    if job.plain:
        return Trainer(model=model, args=arguments, data_collator=Padder(), train_dataset=learned)
    return train.make_trainer(model, {"train": learned, "validation": []}, cfg.train, arguments)


def flops_a_token(model: PeftModel) -> int:
    """Four for each frozen weight of a linear layer except the head's, six for each weight of the adapter."""
    frozen = sum(layer.in_features * layer.out_features for layer in adapters.lora_layers(model))
    return 4 * frozen + 6 * sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
