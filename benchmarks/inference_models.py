"""Brings what the contenders of benchmarks/inference.py answer with: a prompt, and the same weights in each one's format.

    python -m benchmarks.inference_models JOB REPORT

The pipeline keeps no GGUF file, so it is downloaded and verified again, as the stage fetch does it.
"""

import sys
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from benchmarks.children import ROOT, read_json
from stages.build.stage import build
from stages.fetch.stage import download_gguf
from tunepress.config.base_model import BaseModel, Source
from tunepress.config.build import Build
from tunepress.core.cpu import available_cores
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl, write_json, write_jsonl
from tunepress.core.params import load
from tunepress.core.paths import PREPARED
from tunepress.models.hf_model import load_encoder

PHRASES = ROOT / "data/raw/tone.jsonl"


@dataclass
class Config:
    """What is read of params.yaml."""

    base_model: BaseModel
    build: Build


def main(job: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Makes what is missing.

    Args:
        job: `contenders`, `prompt_tokens`, `new_tokens`, the folder `model`, and `onnx` or None to have it built.
        scratch: where models may be written.

    Returns:
        `prompt`: token ids; `threads`: cores of this machine; `models`: by contender its `path` and its kind of `weights`.
    """
    cfg = load(Config, [], ROOT / "params.yaml")
    folder = Path(job["model"])
    config = AutoConfig.from_pretrained(folder)
    room = config.max_position_embeddings - job["new_tokens"]
    if job["prompt_tokens"] > room:
        raise InputError(f"--prompt-tokens: must be {room} or less, so that the model has room for the answer")
    models = {}
    for name in job["contenders"]:
        if name == "onnx":
            path = Path(job["onnx"] or built(cfg.build, folder.resolve(), scratch))
            models[name] = {"path": str(path), "weights": cfg.build.precision}
        elif name == "torch":
            models[name] = {"path": str(folder), "weights": str(config.dtype).removeprefix("torch.")}
        else:
            path = gguf(cfg.base_model, scratch)
            models[name] = {"path": str(path), "weights": path.stem.rpartition(".")[2]}
    return {"prompt": prompt(folder, job["prompt_tokens"]), "threads": available_cores(), "models": models}


def built(recipe: Build, model: Path, scratch: Path) -> Path:
    """An ONNX model of the base model, by the recipe that the pipeline has for the merged one.

    gptq looks at the phrases that come with the project.
    """
    rows = [{"prompt": row["phrase"], "completion": row["tone"]} for row in read_jsonl(PHRASES)]
    write_jsonl(scratch / PREPARED / "train.jsonl", rows)
    with chdir(scratch):
        build(recipe, model, scratch / "onnx")
    return scratch / "onnx"


def gguf(base_model: BaseModel, scratch: Path) -> Path:
    """The file that models/base was dequantized from.

    Raises:
        InputError: it comes from elsewhere.
    """
    if base_model.source is not Source.wheel:
        source = base_model.source.value
        raise InputError(
            f"base_model.source={source}: no GGUF file for llama.cpp; leave it out with --contender onnx --contender torch"
        )
    return download_gguf(base_model, scratch)


def prompt(model: Path, count: int) -> list[int]:
    """The first tokens of the phrases that come with the project, one after the other.

    Raises:
        InputError: there are fewer.
    """
    tokens = load_encoder(model).encode_prompt(" ".join(row["phrase"] for row in read_jsonl(PHRASES)))
    if len(tokens) < count:
        raise InputError(f"--prompt-tokens: must be {len(tokens)} or less, as many as {PHRASES.relative_to(ROOT)} has")
    return tokens[:count]


if __name__ == "__main__":
    try:
        write_json(Path(sys.argv[2]), main(read_json(Path(sys.argv[1])), Path(sys.argv[2]).resolve().parent))
    except InputError as error:
        sys.exit(str(error))
