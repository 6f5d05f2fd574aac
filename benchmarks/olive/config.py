"""What both contenders of benchmarks.olive get: rows, and the olive-config.json that names them."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from benchmarks.processes import ROOT
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl, write_json, write_jsonl

RAW = ROOT / "data/raw/tone.jsonl"
CONFIG, TRAIN, TEST = "olive-config.json", "train.jsonl", "test.jsonl"
FEWEST = 40  # training rows in which the importer recognizes the four tones as the labels of a classification: ten of each
TEXT_TEMPLATE = "### Text: {phrase}\n### The tone is:\n{tone}"
LORA = {"r": 16, "alpha": 32, "lora_dropout": 0.0, "torch_dtype": "float32"}
TRAINING = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "optim": "adamw_torch_fused",
    "logging_steps": 5,
    "save_strategy": "no",
}
# The algorithm is named because the two projects' defaults differ.
INT4 = {"precision": "int4", "int4_algo_config": "k_quant_mixed", "int4_block_size": 32, "int4_accuracy_level": 4}


@dataclass(frozen=True)
class Task:
    """How much work it is."""

    model: Path  # folder of the base model
    rows: int  # to train on
    test_rows: int  # to answer
    steps: int | None  # after which the training ends early

    def check(self) -> None:
        """Raises InputError where the model is missing or there are too few rows."""
        if not (self.model / "config.json").exists():
            raise InputError(f"{self.model}: no model; run `make repro` first, or give another --model")
        available = len(read_jsonl(RAW))
        if self.rows < FEWEST or self.test_rows < 1 or self.rows + self.test_rows > available:
            limits = f"must be at least {FEWEST} and 1, and together at most {available}, the rows of {RAW.relative_to(ROOT)}"
            raise InputError(f"--rows, --test-rows: {limits}, got {self.rows} and {self.test_rows}")


def write(task: Task, seed: int, folder: Path) -> None:
    """Writes the configuration and the rows that it names to a new folder."""
    mixed = in_balance(read_jsonl(RAW))
    folder.mkdir(parents=True)
    write_jsonl(folder / TRAIN, mixed[: task.rows])
    write_jsonl(folder / TEST, mixed[task.rows : task.rows + task.test_rows])
    write_json(folder / CONFIG, configuration(task, seed))


def in_balance(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in an order in which the tones take turns, so that any part of them has the same of each."""
    by_tone: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_tone.setdefault(row["tone"], []).append(row)
    for group in by_tone.values():
        random.Random(0).shuffle(group)
    return [row for turn in zip(*by_tone.values(), strict=True) for row in turn]


def configuration(task: Task, seed: int) -> dict[str, Any]:
    """LoRA, MergeAdapterWeights and ModelBuilder on this machine's CPU, in the format of Olive 0.13."""
    cpu = {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
    length = {"max_steps": task.steps} if task.steps else {}
    training = TRAINING | length | {"seed": seed, "data_seed": seed}
    lora = LORA | {"target_modules": linear_modules(task.model), "train_data_config": "rows", "training_args": training}
    texts = {"text_template": TEXT_TEMPLATE, "strategy": "line-by-line", "max_seq_len": 256, "pad_to_max_len": False}
    rows = {
        "name": "rows",
        "type": "HuggingfaceContainer",
        "load_dataset_config": {"data_name": "json", "data_files": TRAIN, "split": "train"},
        "pre_process_data_config": texts,
    }
    return {
        "input_model": {"type": "HfModel", "model_path": str(task.model.resolve())},
        "systems": {"local": {"type": "LocalSystem", "accelerators": [cpu]}},
        "data_configs": [rows],
        "passes": {
            "lora": {"type": "LoRA", **lora},
            "merge": {"type": "MergeAdapterWeights"},
            "builder": {"type": "ModelBuilder", **INT4},
        },
        "host": "local",
        "target": "local",
        "cache_dir": "cache",
        "output_dir": "output",
    }


def linear_modules(model: Path) -> list[str]:
    """The names of a model's projections, from its files: the parent process of a benchmark imports no torch."""
    names: set[str] = set()
    for shard in model.glob("*.safetensors"):
        with safe_open(shard, framework="numpy") as tensors:
            names.update(name.split(".")[-2] for name in tensors.keys() if name.endswith("_proj.weight"))  # noqa: SIM118
    return sorted(names)


def edit(folder: Path) -> None:
    """Changes the words of one training row, as its owner might."""
    first, *others = read_jsonl(folder / TRAIN)
    lines = [json.dumps(row, ensure_ascii=False) for row in ({**first, "phrase": f"{first['phrase']} Really."}, *others)]
    (folder / TRAIN).write_text("\n".join(lines) + "\n", encoding="utf-8")
