"""Adapters with random weights, for tests of what is done with one: no training, and large enough to be seen in the logits."""

from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model
from transformers import set_seed

from tunepress.models.hf_model import load_model


def write_random_adapter(base: Path, folder: Path, seed: int = 0, **fields: Any) -> Path:
    """Writes an adapter of `base` in peft's layout to `folder`, a LoRA on all linear layers unless `fields` say otherwise."""
    values = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "init_lora_weights": False} | fields
    set_seed(seed)
    get_peft_model(load_model(base), LoraConfig(task_type="CAUSAL_LM", **values)).save_pretrained(folder)
    return folder
