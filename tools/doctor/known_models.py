"""The shapes of the models of conf/base_model/, so that a recipe can be checked and estimated before its model is downloaded."""

from typing import Any

TIED = {"tie_word_embeddings": True}
BF16 = {"dtype": "bfloat16"}
QWEN3 = {"model_type": "qwen3", "vocab_size": 151936, "max_position_embeddings": 40960, "head_dim": 128, **TIED, **BF16}
LLAMA3_2 = {
    "model_type": "llama",
    "vocab_size": 128256,
    "intermediate_size": 8192,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rope_parameters": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    },
    **TIED,
    **BF16,
}


def shape(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }


KNOWN: dict[str, dict[str, Any]] = {  # transformers' configs by base_model.name, without its owner
    "Phi-3-mini-4k-instruct": {
        "model_type": "phi3",
        **shape(3072, 8192, 32, 32, 32),
        "vocab_size": 32064,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "sliding_window": 2047,
        **BF16,
    },
    "Phi-4-mini-instruct": {
        "model_type": "phi3",
        **shape(3072, 8192, 32, 24, 8),
        "vocab_size": 200064,
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "longrope",
            "short_factor": [1.0] * 48,
            "long_factor": [1.0] * 48,
            "partial_rotary_factor": 0.75,
            "rope_theta": 10000.0,
        },
        **TIED,
        **BF16,
    },
    "Qwen3-0.6B": {**QWEN3, **shape(1024, 3072, 28, 16, 8)},
    "Qwen3-1.7B": {**QWEN3, **shape(2048, 6144, 28, 16, 8)},
    "Qwen3-4B": {**QWEN3, **shape(2560, 9728, 36, 32, 8)},
    "Llama-3.2-1B-Instruct": {**LLAMA3_2, **shape(2048, 8192, 16, 32, 8), "head_dim": 64},
    "Llama-3.2-3B-Instruct": {**LLAMA3_2, **shape(3072, 8192, 28, 24, 8), "head_dim": 128},
    "gemma-3-1b-it": {
        "model_type": "gemma3_text",
        **shape(1152, 6912, 26, 4, 1),
        "head_dim": 256,
        "vocab_size": 262144,
        "max_position_embeddings": 32768,
        "sliding_window": 512,
        **TIED,
        **BF16,
    },
    "SmolLM2-135M-Instruct": {
        "model_type": "llama",
        **shape(576, 1536, 30, 9, 3),
        "vocab_size": 49152,
        **TIED,
        "dtype": "float32",  # as fetch writes it
    },
    "SmolLM2-1.7B-Instruct": {
        "model_type": "llama",
        **shape(2048, 8192, 24, 32, 32),
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        **TIED,
        **BF16,
    },
    "SmolLM3-3B": {
        "model_type": "smollm3",
        **shape(2048, 11008, 36, 16, 4),
        "vocab_size": 128256,
        "max_position_embeddings": 65536,
        **TIED,
        **BF16,
    },
}
