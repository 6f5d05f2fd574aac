"""Makes what the contenders of benchmarks.inference need: a prompt, and the same weights in each one's format.

The pipeline keeps no GGUF file, so it is downloaded and verified again, as in the stage fetch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from benchmarks.processes import ROOT
from stages.build.stage import build
from stages.fetch.stage import download_gguf
from tunepress.config.base_model import BaseModel, Source
from tunepress.config.build import Build
from tunepress.core.cpu import available_cores
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl, write_jsonl
from tunepress.core.params import load
from tunepress.core.paths import PREPARED
from tunepress.models.hf_model import load_encoder
from tunepress.text.segments import context, learned

PHRASES = ROOT / "data/raw/tone.jsonl"


@dataclass
class Config:
    """What is read of params.yaml."""

    base_model: BaseModel
    build: Build


def make(contenders: list[str], model: str, onnx: str | None, prompt_tokens: int, new_tokens: int) -> dict[str, Any]:
    """Makes what is missing in the working folder.

    Args:
        contenders: their names.
        model: folder in Hugging Face's layout.
        onnx: the same model in onnxruntime-genai's; None builds it.
        prompt_tokens: length of the prompt.
        new_tokens: length of an answer.

    Returns:
        `prompt`: token ids; `threads`: cores of this machine; `models`: by contender its `path` and its kind of `weights`.
    """
    cfg = load(Config, [], ROOT / "params.yaml")
    folder = Path(model)
    config = AutoConfig.from_pretrained(folder)
    room = config.max_position_embeddings - new_tokens
    if prompt_tokens > room:
        raise InputError(
            f"--prompt-tokens: must be at most {room}, so that the model has room for the answer, got {prompt_tokens}"
        )
    models = {}
    for name in contenders:
        if name == "onnx":
            path = Path(onnx or built(cfg.build, folder.resolve()))
            weights = cfg.build.precision
        elif name == "torch":
            path, weights = folder, str(config.dtype).removeprefix("torch.")
        else:
            path = gguf(cfg.base_model, Path.cwd())
            weights = path.stem.rpartition(".")[2]
        models[name] = {"path": str(path), "weights": weights}
    return {"prompt": prompt(folder, prompt_tokens), "threads": available_cores(), "models": models}


def built(recipe: Build, model: Path) -> Path:
    """An ONNX model of the base model, by the recipe that the pipeline has for the merged one.

    gptq calibrates with the phrases of the project.
    """
    rows = [{"segments": [context(row["phrase"]), learned(row["tone"], row["tone"])]} for row in read_jsonl(PHRASES)]
    write_jsonl(PREPARED / "train.jsonl", rows)
    build(recipe, model, Path("onnx"))
    return Path("onnx").resolve()


def gguf(base_model: BaseModel, folder: Path) -> Path:
    """The file that models/base was dequantized from.

    Raises:
        InputError: the base model has another source.
    """
    if base_model.source is not Source.wheel:
        source = base_model.source.value
        raise InputError(
            f"base_model.source={source}: no GGUF file for llama.cpp; leave it out with --contender onnx --contender torch"
        )
    return download_gguf(base_model, folder)


def prompt(model: Path, count: int) -> list[int]:
    """The first tokens of the project's phrases, one after the other.

    Raises:
        InputError: there are fewer.
    """
    tokens = load_encoder(model).encode_prompt(" ".join(row["phrase"] for row in read_jsonl(PHRASES)))
    if len(tokens) < count:
        raise InputError(
            f"--prompt-tokens: must be at most {len(tokens)}, as many as {PHRASES.relative_to(ROOT)} has, got {count}"
        )
    return tokens[:count]
