"""What benchmarks.train finds out first: the rows that all contenders train, the model's shape, the rate of matrix products."""

import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM

from tunepress.core.files import read_jsonl, write_jsonl
from tunepress.core.paths import BASE, PREPARED
from tunepress.models.hf_model import load_encoder
from tunepress.text.prompt import Prompt

MATRICES = ((466, 576, 1536), (466, 1536, 576), (466, 576, 576), (3072, 3072, 3072))  # rows, inner, columns
SECONDS = 1.0  # for each of them


def recipe(folder_of_rows: str) -> dict[str, Any]:
    """Writes the rows as tokens and as texts, and returns their number of tokens and the model's shape.

    Args:
        folder_of_rows: for rows.jsonl (`input_ids` and `labels`, as the stage makes them) and texts.jsonl (the same tokens as
            text, for a tool that has its own tokenizer).
    """
    completion_only = bool(OmegaConf.load("params.yaml").train.completion_only_loss)
    prompt, encoder = Prompt.load(PREPARED), load_encoder(BASE)
    rows = read_jsonl(PREPARED / "train.jsonl")
    examples = [encoder.encode_example(row, prompt.source_max_len, completion_only) for row in rows]
    write_jsonl(Path(folder_of_rows, "rows.jsonl"), examples)
    texts = [{"text": encoder.tokenizer.decode(example["input_ids"])} for example in examples]
    write_jsonl(Path(folder_of_rows, "texts.jsonl"), texts)
    tokens = sum(len(example["input_ids"]) for example in examples)
    return {"rows": len(rows), "row_tokens": tokens, **shape(BASE)}


def shape(model: Path) -> dict[str, Any]:
    """The number of weights that every token goes through, and the names of the linear modules that an adapter is for."""
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    ends = (empty.get_input_embeddings(), empty.get_output_embeddings())
    outer = {id(parameter) for module in ends for parameter in module.parameters()}
    linear = {
        name.rsplit(".")[-1]
        for name, module in empty.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not empty.get_output_embeddings()
    }
    active = sum(parameter.numel() for parameter in empty.parameters() if id(parameter) not in outer)
    return {"active_parameters": active, "linear_modules": sorted(linear)}


def matrix_rates() -> dict[str, float]:
    """GFLOP/s of torch's float32 products: sizes of the model, and a big square as the machine's best."""
    return {f"{rows}x{inner} @ {inner}x{columns}": round(best_rate(rows, inner, columns), 1) for rows, inner, columns in MATRICES}


def best_rate(rows: int, inner: int, columns: int) -> float:
    """GFLOP/s of the fastest of many products of one shape."""
    left, right = torch.rand(rows, inner), torch.rand(inner, columns)
    product = torch.empty(rows, columns)
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(left, right, out=product)
        best = min(best, time.perf_counter() - start)
    return 2 * rows * inner * columns / best / 1e9
