"""Checks sliding windows by their results: a small random twin of a model, built in float32, is compared with torch.

The model itself may be too large for torch, and quantized weights differ from torch's in any case. The twin has a layer of each
type and the model's positions and head size, and takes seconds. Whether the model's own layers have the right windows is
checked in its graph (windows.py).
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime_genai as og
import torch

from stages.build.builder import Builder
from stages.build.windows import ALL, layer_types, windows
from tunepress.core.errors import InputError
from tunepress.models.hf_model import load_model
from tunepress.models.random_model import write_random_model

WINDOW, BEYOND = 32, 8  # tokens of the twin's window, unless the model's is shorter, and tokens beyond it
CLOSE = 1e-3  # of the largest logit; float32 differs by 1e-5, one token more or less by 5e-3 (tests/stages/build/test_twin.py)


def check(config: Any) -> None:
    """Compares the logits of a twin with torch's, for a prompt longer than the window of the model.

    Args:
        config: the model's config, loaded by transformers.

    Raises:
        InputError: the installed builder and onnxruntime compute something else.
    """
    if ALL < max(windows(config)) < config.max_position_embeddings:
        computed, expected = logits(config)
        difference = float(np.abs(computed - expected).max() / np.abs(expected).max())
        if not difference < CLOSE:
            raise InputError(
                "the installed onnxruntime computes sliding windows differently from torch (the logits of a small model differ "
                f"by {difference:.1g} of the largest); run `make setup` for the pinned versions"
            )


def logits(config: Any) -> tuple[np.ndarray, np.ndarray]:
    """The twin's logits for a prompt that is longer than the window, by onnxruntime-genai and by torch, [tokens, vocabulary]."""
    with TemporaryDirectory() as scratch:
        source, built = Path(scratch, "source"), Path(scratch, "built")
        source.mkdir()
        write_random_model(twin_config(config), 0, source)
        Builder("fp32", "cpu", []).build(source, built)
        length = min(min(max(windows(config)), WINDOW) + BEYOND, config.max_position_embeddings)
        tokens = np.random.default_rng(0).integers(0, 256, length).tolist()
        with torch.inference_mode():
            expected = load_model(source).eval()(torch.tensor([tokens]), use_cache=False).logits[0].numpy()
        return genai_logits(built, tokens), expected


def twin_config(config: Any) -> dict[str, Any]:
    """The config of the twin: a layer of each type, and two heads of the model's head size."""
    types = layer_types(config)
    chosen = [types.index(kind) for kind in dict.fromkeys(types)]
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    fields = config.to_dict() | {
        "sliding_window": min(config.sliding_window, WINDOW),
        "num_hidden_layers": len(chosen),
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "hidden_size": 2 * head_dim,
        "intermediate_size": 2 * head_dim,
        "initializer_range": 0.1,  # attention has a larger effect
    }
    for name in ("layer_types", "no_rope_layers"):  # fields with an entry for each layer
        if fields.get(name):
            fields[name] = [fields[name][number] for number in chosen]
    dropped = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "quantization_config", "dtype", "architectures")
    return {name: value for name, value in fields.items() if name not in dropped}


def genai_logits(folder: Path, tokens: list[int]) -> np.ndarray:
    """The logits of all tokens; those after the middle are computed again after the cache is rewound, as in `evaluate`."""
    model, middle = og.Model(str(folder)), len(tokens) - BEYOND // 2
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=len(tokens))
    generator = og.Generator(model, parameters)
    generator.append_tokens(tokens[:middle])
    first = np.array(generator.get_output("logits")[0])
    generator.append_tokens(tokens[middle:])
    generator.rewind_to(middle)
    generator.append_tokens(tokens[middle:])
    return np.concatenate([first, np.array(generator.get_output("logits")[0])])
