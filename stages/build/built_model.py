"""Checks a model folder that the builder has written, and describes it in metrics."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import onnxruntime_genai as og
import torch
from onnx import ModelProto

from stages.build import onnx_graph, onnx_weights, twin, windows
from tunepress.config.build import Build
from tunepress.core.errors import InputError, one_line
from tunepress.core.files import size_mb
from tunepress.core.paths import ADAPTER_FILE
from tunepress.inference import genai_config
from tunepress.inference.genai_config import GenaiConfig
from tunepress.inference.onnx_model import OnnxModel
from tunepress.models.hf_model import load_config, load_encoder
from tunepress.text.chat_prompt import ChatPrompt
from tunepress.text.prompt import Prompt


def check(build: Build, merged: Path, folder: Path) -> ModelProto:
    """Checks that a model will run on the provider it was built for.

    Args:
        build: the section build.
        merged: folder of the source model, with its tokenizer.
        folder: in onnxruntime-genai's layout, with prompt.json.

    Returns:
        Its graph, without the data of its weights.

    Raises:
        InputError: it will not run.
    """
    config, prompt = GenaiConfig.read(folder), Prompt.load(folder)
    genai_config.check(config, build.execution_provider, load_encoder(merged, prompt.eos_token_ids), prompt)
    model, source = onnx_graph.check(config), load_config(merged)
    windows.check(model, config, windows.windows(source))
    if config.provider == "cpu":
        twin.check(source)
    return model


def runs_here(config: GenaiConfig) -> bool:
    """Whether this machine has the provider that a model was built for."""
    return config.provider == "cpu" or (config.provider == "cuda" and og.is_cuda_available() and torch.cuda.is_available())


def load_checked(folder: Path) -> OnnxModel | None:
    """Loads a model and generates one token; None if this machine does not have its provider.

    Raises:
        InputError: it fails, as with some combinations of options that the builder accepts, or the logits are not finite.
    """
    if not runs_here(GenaiConfig.read(folder)):
        return None
    prompt = example_prompt(folder, Prompt.load(folder))
    try:
        model = OnnxModel(folder)
        model.answer(prompt, 1)
        ((_, _, logits),) = model.logits([(model.encode_prompt(prompt), [[0]])])
    except RuntimeError as error:
        raise InputError(f"the model built with these options does not run ({one_line(error)}); leave some out") from error
    if not np.isfinite(logits).all():
        raise InputError("the model built with these options computes NaN or infinite logits; leave some out")
    return model


def example_prompt(folder: Path, prompt: Prompt) -> str:
    if prompt.prompt is None:
        return ChatPrompt(folder, prompt).render_text("?")
    return prompt.render_prompt(dict.fromkeys(prompt.columns, "?"))


def metrics(build: Build, folder: Path, model: ModelProto) -> dict[str, Any]:
    """The configured target and the recipe in the graph, the versions of the packages, and the size of each part."""
    weights = onnx_weights.read(model)
    return {
        "precision": build.precision,
        "execution_provider": build.execution_provider,
        **onnx_weights.actual_recipe(weights),
        "onnxruntime": onnxruntime.__version__,
        "onnxruntime_genai": og.__version__,
        "size_mb": size_mb(folder),
        **({"adapter_mb": size_mb(folder / ADAPTER_FILE)} if (folder / ADAPTER_FILE).exists() else {}),
        "effective_bits_per_weight": weights.effective_bits_per_weight,
        "mb_by_part": weights.mb_by_part(),
        "mb_by_kind": weights.mb_by_kind(),
    }
