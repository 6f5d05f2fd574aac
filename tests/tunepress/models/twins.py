"""Small random models of every architecture that is supported."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.stages.merging import disturbed_model

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 512,
}
DENSE = {"layer_types": ["attention"] * 2, "num_local_experts": 0, "shared_intermediate_size": 128}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.5] * 16, "long_factor": [3.0] * 16, "rope_theta": 10000.0}
TWINS: dict[str, dict[str, Any]] = {
    "ernie": {"model_type": "ernie4_5"},
    "gemma": {"model_type": "gemma"},
    "gemma2": {"model_type": "gemma2", "sliding_window": 24},
    "gemma3": {"model_type": "gemma3_text", "sliding_window": 24, "sliding_window_pattern": 2},
    "granite": {"model_type": "granite"},
    "granite hybrid": {"model_type": "granitemoehybrid", "position_embedding_type": "rope", **DENSE},
    "hunyuan": {"model_type": "hunyuan_v1_dense"},
    "hunyuan, dynamic": {
        "model_type": "hunyuan_v1_dense",
        "rope_parameters": {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0, "rope_theta": 10000.0},
    },
    "llama": {"model_type": "llama"},
    "llama, llama3": {
        "model_type": "llama",
        "rope_parameters": {**LLAMA3, "original_max_position_embeddings": 64, "rope_theta": 10000.0},
    },
    "mistral": {"model_type": "mistral", "sliding_window": 24},
    "mistral, linear": {"model_type": "mistral", "rope_parameters": LINEAR},
    "phi": {"model_type": "phi", "partial_rotary_factor": 0.5},
    "phi3": {"model_type": "phi3", "sliding_window": 24, "original_max_position_embeddings": 512},
    "phi3, longrope": {"model_type": "phi3", "original_max_position_embeddings": 32, "rope_parameters": LONGROPE},
    "qwen2": {"model_type": "qwen2"},
    "qwen2, linear": {"model_type": "qwen2", "rope_parameters": LINEAR},
    "phi4 mini": {
        "model_type": "phi3",
        "num_attention_heads": 1,
        "head_dim": 64,
        "tie_word_embeddings": True,
        "original_max_position_embeddings": 32,
        "rope_parameters": LONGROPE | {"short_factor": [1.5] * 24, "long_factor": [3.0] * 24, "partial_rotary_factor": 0.75},
    },
    "qwen3": {"model_type": "qwen3"},
    "smollm3": {"model_type": "smollm3", "no_rope_layers": [1, 0], "sliding_window": 24},
}
TOKENS: list[int] = np.random.default_rng(0).integers(0, 256, 80).tolist()


def twin(folder: Path, fields: dict[str, Any], dtype: torch.dtype | None = None) -> Path:
    """A random model in which no weight is all zeros or ones."""
    folder.mkdir()
    return disturbed_model(folder, SHAPE | fields, dtype=dtype)


@torch.inference_mode()
def logits(model: Any) -> np.ndarray:
    values: np.ndarray = model.eval()(torch.tensor([TOKENS]), use_cache=False).logits[0].numpy()
    return values
