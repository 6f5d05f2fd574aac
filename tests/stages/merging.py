"""Small base models and adapters with random weights for the tests of the merge, and what peft makes of the two."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from stages.merge import stage as merge
from tunepress.config.merge import Merge, MergeBase
from tunepress.core.paths import ADAPTER, BASE, MERGED
from tunepress.models.hf_model import load_model
from tunepress.models.random_model import write_random_model
from tunepress.text.prompt import Prompt

# Sizes that no vector register divides evenly.
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 72,
    "intermediate_size": 108,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "phi3": {**LLAMA, "model_type": "phi3", "max_position_embeddings": 512, "original_max_position_embeddings": 512},
    "llama": {**LLAMA, "attention_bias": True, "mlp_bias": True},
    "tied": {**LLAMA, "tie_word_embeddings": True},
    "gpt2": {"model_type": "gpt2", "n_embd": 72, "n_layer": 2, "n_head": 4, "tie_word_embeddings": False},
}
TOKENS = torch.arange(2, 42).view(2, 20) * 5
ONE_FILE, SEVERAL = "50GB", "60KB"


def new_base(folder: Path, architecture: str, dtype: torch.dtype = torch.float32, max_shard_size: str = SEVERAL) -> Path:
    """Writes a model in which no tensor is all zeros or ones."""
    folder.mkdir(parents=True)
    return disturbed_model(folder, ARCHITECTURES[architecture], 0.05, dtype, max_shard_size=max_shard_size)


def new_adapter(folder: Path, base: Path, **options: Any) -> PeftModel:
    """Writes an adapter with random weights; returns the model with it, as training would leave it."""
    config = LoraConfig(task_type="CAUSAL_LM", **({"r": 8, "lora_alpha": 24} | options))
    adapted = get_peft_model(load_model(base, dtype=torch.float32), config)
    disturb(adapted, 0.05, trained_only=True)
    adapted.save_pretrained(folder)
    Prompt("{a}", "{b}", None, source_max_len=10).save(folder)
    return adapted.eval()


@torch.no_grad()
def disturbed_model(
    folder: Path, fields: dict[str, Any], spread: float = 0.1, dtype: torch.dtype | None = None, **options: Any
) -> Path:
    """Writes a random model in which no tensor is all zeros or ones, in `dtype` if one is given; `options` of save_pretrained."""
    write_random_model(fields, 0, folder)
    model = load_model(folder)
    disturb(model, spread)
    (folder / "model.safetensors").unlink()
    model.to(dtype or model.dtype).save_pretrained(folder, **options)
    return folder


@torch.no_grad()
def disturb(model: Any, spread: float, trained_only: bool = False) -> None:
    """Adds noise to a model's weights."""
    noise = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad or not trained_only:
            parameter.add_(torch.randn(parameter.shape, generator=noise).to(parameter.dtype) * spread)


def merged_by_peft(base: Path, adapter: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The base model in a type, with the adapter merged by peft."""
    return PeftModel.from_pretrained(load_model(base, dtype=dtype), adapter).merge_and_unload(safe_merge=True)


def merge_in(project: Path, base: Path, adapter: Path, merge_base: MergeBase = MergeBase.original) -> Path:
    """Runs the stage in a project's folder with these inputs; returns the merged model's."""
    for place, target in ((BASE, base), (ADAPTER, adapter)):
        (project / place).parent.mkdir(parents=True, exist_ok=True)
        (project / place).unlink(missing_ok=True)
        (project / place).symlink_to(target)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        merge.main(merge.Config(Merge(merge_base)))
    return project / MERGED


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    """Of TOKENS."""
    actual: torch.Tensor = model.eval()(TOKENS).logits
    return actual
