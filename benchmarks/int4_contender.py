"""Holds int4 models of one merged model against it, on the held-out rows: a list with what each does, merged first.

    python -m benchmarks.int4_contender REPORT MERGED ONNX...

Runs in a folder laid out like the project, after the stages.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stages.compare import encoded
from stages.lib.edge.outputs import read_jsonl
from stages.lib.edge.paths import PREPARED
from stages.lib.likelihood import Logits, Scorer, Tokens, agreement, chosen
from stages.lib.onnx_model import OnnxModel
from stages.lib.torch_model import TorchModel

BATCH_SIZE = 16

Asked = list[tuple[Tokens, list[Tokens]]]


def main(report: Path, merged: Path, others: list[Path]) -> None:
    """Writes the report."""
    model = TorchModel(merged, BATCH_SIZE)
    asked = [encoded(model, row) for row in read_jsonl(PREPARED / "test.jsonl")]
    reference = dict(logits_of(model, asked))
    right = {number: is_right(reference[number], completion) for number, (_, (completion,)) in enumerate(asked)}
    found = [figures(reference, asked)]
    for folder in others:
        answered = dict(logits_of(OnnxModel(folder), asked))
        found.append(figures(answered, asked) | against(reference, answered, asked, right))
    report.write_text(json.dumps(found), encoding="utf-8")


def logits_of(model: Scorer, asked: Asked) -> Iterator[tuple[int, Logits]]:
    """Each row's logits of its completion's tokens, [tokens, vocabulary]."""
    for number, (logits,) in model.logits(asked):
        yield number, logits


def is_right(logits: Logits, completion: Tokens) -> bool:
    """Whether the model writes the completion when it takes the most probable token each time; its end is not asked for."""
    return bool((logits.argmax(-1) == completion)[:-1].all())


def figures(answered: dict[int, Logits], asked: Asked) -> dict[str, Any]:
    """Rows, those that are right, and the perplexity of the completions."""
    likelihood = np.concatenate([chosen(answered[number], completion) for number, (_, (completion,)) in enumerate(asked)])
    return {
        "rows": len(asked),
        "right": sum(is_right(answered[number], completion) for number, (_, (completion,)) in enumerate(asked)),
        "perplexity": float(np.exp(-likelihood.mean())),
    }


def against(reference: dict[int, Logits], answered: dict[int, Logits], asked: Asked, right: dict[int, bool]) -> dict[str, Any]:
    """How far a model's choices are from merged's, and the rows that only one of the two has right."""
    pairs = [agreement(reference[number], answered[number]) for number in range(len(asked))]
    own = [is_right(answered[number], completion) for number, (_, (completion,)) in enumerate(asked)]
    tokens = sum(len(logits) for logits in reference.values())
    return {
        "tokens": tokens,
        "top1_agreement": sum(same for same, _ in pairs) / tokens,
        "mean_kl": sum(nats for _, nats in pairs) / tokens,
        "only_merged_right": sum(right[number] and not own[number] for number in right),
        "only_onnx_right": sum(own[number] and not right[number] for number in right),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(folder) for folder in sys.argv[3:]])
