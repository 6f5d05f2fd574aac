"""Trains an adapter with TRL, in a process of its own: python trl_sft.py BASE ADAPTER."""

import sys

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]

base, adapter = sys.argv[1:]
rows = [{"prompt": f"Text: day {number}\nTone: ", "completion": ("joy", "fear")[number % 2]} for number in range(16)]
trainer = SFTTrainer(
    model=base,
    args=SFTConfig(adapter, max_steps=4, learning_rate=1e-2, report_to="none", save_strategy="no", use_cpu=True, bf16=False),
    train_dataset=Dataset.from_list(rows),
    peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
)
trainer.train()
trainer.save_model(adapter)
