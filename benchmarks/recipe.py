"""Reads what all contenders train: writes the rows as tokens and as texts, and reports their tokens and the model's shape.

    python -m benchmarks.recipe FOLDER

Runs in a folder laid out like the project. Writes FOLDER/recipe.json, FOLDER/rows.jsonl (`input_ids` and `labels`, as the
stage makes them) and FOLDER/texts.jsonl (the same tokens as text, for a peer that has a tokenizer of its own).
"""

import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM

from tunepress.core.files import read_jsonl, write_json, write_jsonl
from tunepress.core.paths import BASE, PREPARED
from tunepress.models.hf_model import load_encoder
from tunepress.text.prompt import Prompt


def main(folder: Path) -> None:
    """Writes the three files."""
    completion_only = bool(OmegaConf.load("params.yaml").train.completion_only_loss)
    prompt, encoder = Prompt.load(PREPARED), load_encoder(BASE)
    rows = read_jsonl(PREPARED / "train.jsonl")
    examples = [encoder.encode_example(row, prompt.source_max_len, completion_only) for row in rows]
    write_jsonl(folder / "rows.jsonl", examples)
    write_jsonl(folder / "texts.jsonl", [{"text": encoder.tokenizer.decode(example["input_ids"])} for example in examples])
    tokens = sum(len(example["input_ids"]) for example in examples)
    write_json(folder / "recipe.json", {"rows": len(rows), "row_tokens": tokens, **shape(BASE)})


def shape(model: Path) -> dict[str, Any]:
    """The weights that every token goes through, and the names of the linear modules that an adapter is for."""
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    outer = {
        id(parameter) for part in (empty.get_input_embeddings(), empty.get_output_embeddings()) for parameter in part.parameters()
    }
    linear = {
        name.rsplit(".")[-1]
        for name, module in empty.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not empty.get_output_embeddings()
    }
    active = sum(parameter.numel() for parameter in empty.parameters() if id(parameter) not in outer)
    return {"active_parameters": active, "linear_modules": sorted(linear)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
