"""The contender `trainer`: LoRA as transformers' documentation shows it, with nothing of this project.

    python -m benchmarks.train.plain_trainer JOB

Batches are padded to their longest row, and the model computes all logits and its own loss. Initial weights, order of the
rows and loss positions are the stage's own.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments, set_seed


def main(job: dict[str, Any]) -> None:
    model = AutoModelForCausalLM.from_pretrained(job["model"], use_safetensors=True)
    adapter = {name: job["adapter"][name] for name in ("r", "lora_alpha", "lora_dropout", "target_modules")}
    set_seed(job["seed"])
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **adapter))
    rows = [json.loads(line) for line in Path(job["rows"]).read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch, seed=job["seed"], save_strategy="no", report_to="none", **job["training_arguments"]
        )
        collator = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(job["model"]), padding="longest")
        Trainer(model=adapted, args=arguments, data_collator=collator, train_dataset=Dataset.from_list(rows)).train()
    adapted.save_pretrained(job["output"])


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
