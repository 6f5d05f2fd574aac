"""Holds int4 models of one merged model against it, on the held-out rows: a list with what each does, merged first.

    python -m benchmarks.int4_contender REPORT MERGED ONNX...

Runs in a folder laid out like the project, after the stages.
"""

import json
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from tunepress.core.files import read_jsonl
from tunepress.core.paths import PREPARED
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.scoring import Logits, Scorer, agreement, encode_request, token_logprobs
from tunepress.inference.torch_model import TorchModel
from tunepress.text.prompt import Prompt
from tunepress.text.tokenizer import Tokens

BATCH_SIZE = 16

Asked = list[tuple[Tokens, list[Tokens]]]


def main(report: Path, merged: Path, others: list[Path]) -> None:
    """Writes the report."""
    model = TorchModel(merged, BATCH_SIZE)
    rows, length = read_jsonl(PREPARED / "test.jsonl"), Prompt.load(PREPARED).source_max_len
    asked = [encode_request(model, row["prompt"], [row["completion"]], length) for row in rows]
    reference = logits_of(model, asked)
    right = rights(reference, asked)
    found = [figures(reference, right, asked)]
    for folder in others:
        answered = logits_of(OnnxModel(folder), asked)
        own = rights(answered, asked)
        found.append(figures(answered, own, asked) | agreements(reference, answered) | differing(right, own))
    report.write_text(json.dumps(found), encoding="utf-8")


def logits_of(model: Scorer, asked: Asked) -> list[Logits]:
    """Each row's logits of its completion's tokens, [tokens, vocabulary]."""
    found = {number: [logits for _, _, logits in chunks] for number, chunks in groupby(model.logits(asked), itemgetter(0))}
    return [np.concatenate(found[number]) for number in range(len(asked))]


def rights(answered: list[Logits], asked: Asked) -> list[bool]:
    """Of each row whether the model writes the completion when it takes the most probable token each time, its end aside."""
    return [
        bool((logits.argmax(-1) == completion)[:-1].all()) for logits, (_, (completion,)) in zip(answered, asked, strict=True)
    ]


def figures(answered: list[Logits], right: list[bool], asked: Asked) -> dict[str, Any]:
    """Rows, those that are right, and the perplexity of the completions."""
    likelihoods = [token_logprobs(logits, completion) for logits, (_, (completion,)) in zip(answered, asked, strict=True)]
    return {"rows": len(asked), "right": sum(right), "perplexity": float(np.exp(-np.concatenate(likelihoods).mean()))}


def agreements(reference: list[Logits], answered: list[Logits]) -> dict[str, Any]:
    """How far a model's choices are from merged's."""
    pairs = [agreement(first, second) for first, second in zip(reference, answered, strict=True)]
    tokens = sum(map(len, reference))
    return {
        "tokens": tokens,
        "top1_agreement": sum(same for same, _ in pairs) / tokens,
        "mean_kl": sum(nats for _, nats in pairs) / tokens,
    }


def differing(merged: list[bool], onnx: list[bool]) -> dict[str, int]:
    """The rows that only one of the two has right."""
    pairs = list(zip(merged, onnx, strict=True))
    return {"only_merged_right": pairs.count((True, False)), "only_onnx_right": pairs.count((False, True))}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(folder) for folder in sys.argv[3:]])
