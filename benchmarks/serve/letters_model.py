"""A random int4 model that answers each prompt with other letters, so that answers can be told apart without a real model.

A random model with a byte tokenizer writes bytes that are not text, and chooses each from the last byte only.
"""

import string
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from benchmarks.models import recipe
from stages.build.stage import build
from tunepress.models.random_model import write_random_model
from tunepress.text.prompt import Prompt

LETTERS = string.ascii_letters + string.digits + ".,!-"
ENDS = ["<|endoftext|>", "<|end|>"]
GAIN = 8  # of the layers: without it the last letter alone would decide which comes next
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
PROMPT = Prompt("### Text: {phrase}\n### The tone is:\n", "{tone}", None, source_max_len=100, max_new_tokens=12)


def letters_model(folder: Path, shape: dict[str, int], context: int, endless: bool) -> Path:
    """Makes the model and returns its folder.

    Args:
        folder: for the model, in `onnx`, and the model that it is built from.
        shape: of transformers' Phi-3.
        context: number of tokens.
        endless: whether it never ends an answer by itself.
    """
    base = folder / "base"
    base.mkdir(parents=True)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    lengths = dict.fromkeys(("max_position_embeddings", "original_max_position_embeddings"), context)
    architecture: dict[str, Any] = {"model_type": "phi3", **shape, **heads, **lengths, "sliding_window": None}
    write_random_model(architecture, 0, base)
    allowed = AutoTokenizer.from_pretrained(base).convert_tokens_to_ids([*LETTERS, *([] if endless else ENDS)])
    weights = load_file(base / "model.safetensors")
    head = weights["lm_head.weight"]
    kept = head[allowed]
    head.zero_()  # a logit of 0, above which one of so many random ones always is
    head[allowed] = kept
    for name, weight in weights.items():
        if name.endswith("_proj.weight"):
            weight *= GAIN
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    build(recipe(block_size=32, accuracy_level=4, is_symmetric=True), base, folder / "onnx")
    PROMPT.save(folder / "onnx")
    return folder / "onnx"


def make() -> dict[str, str]:
    """The task of benchmarks.serve: makes the model in the working folder."""
    return {"model": str(letters_model(Path.cwd(), TINY, context=512, endless=False))}
