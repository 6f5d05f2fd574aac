"""One contender of benchmarks/evaluate.py, in a process of its own, in a folder laid out like the project.

python -m benchmarks.evaluate_contender REPORT {stage,loop} {merged,onnx} [ROWS]
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluate import CANDIDATES
from stages.evaluate import load
from tunepress.core.files import read_jsonl
from tunepress.core.paths import PREPARED
from tunepress.inference.scoring import Logits, score, token_logprobs
from tunepress.text.prompt import Prompt
from tunepress.text.tokenizer import Tokens

BATCH_SIZE = 16  # of params.yaml's default

Rows = list[dict[str, Any]]
AllLogits = Callable[[Tokens], Logits]  # of a text's tokens, [tokens, vocabulary]


def stage(candidate: str, rows: Rows, prompt: Prompt) -> dict[str, Any]:
    """As the stage does it."""
    model = load(candidate, BATCH_SIZE)
    start = time.perf_counter()
    answers = model.answers([row["prompt"] for row in rows], prompt.max_new_tokens)
    top_labels, figures = score(model, rows, prompt.labels, prompt.source_max_len)
    seconds = time.perf_counter() - start
    return report(seconds, figures["perplexity"], answers, [one["top_label"] for one in top_labels])


def loop(candidate: str, rows: Rows, prompt: Prompt) -> dict[str, Any]:
    """A row after the other."""
    model = load(candidate, 1)
    all_logits = torch_logits(model) if candidate == "merged" else onnx_logits(model)
    start = time.perf_counter()
    answers, top_labels, total, tokens = [], [], 0.0, 0
    for row in rows:
        answers.extend(model.answers([row["prompt"]], prompt.max_new_tokens))
        asked = model.encode_prompt(row["prompt"])
        sums = {}
        for label in prompt.labels or [row["expected"]]:
            completion = model.encode_completion(label + row["completion"][len(row["expected"]) :])
            logits = all_logits([*asked, *completion])[len(asked) - 1 : -1]
            sums[label] = float(token_logprobs(logits, completion).sum())
            tokens += len(completion) if label == row["expected"] else 0
        top_labels.append(max(sums, key=lambda label: sums[label]))
        total += sums[row["expected"]]
    seconds = time.perf_counter() - start
    return report(seconds, float(np.exp(-total / tokens)), answers, top_labels)


def torch_logits(candidate: Any) -> AllLogits:
    """Through transformers."""
    import torch

    def all_logits(tokens: Tokens) -> Logits:
        with torch.inference_mode():
            found: Logits = candidate.model(input_ids=torch.tensor([tokens])).logits[0].float().numpy()
            return found

    return all_logits


def onnx_logits(candidate: Any) -> AllLogits:
    """Through onnxruntime-genai."""
    import onnxruntime_genai as og

    def all_logits(tokens: Tokens) -> Logits:
        parameters = og.GeneratorParams(candidate.model)
        parameters.set_search_options(max_length=len(tokens) + 1)
        generator = og.Generator(candidate.model, parameters)
        generator.append_tokens(tokens)
        return np.array(generator.get_output("logits")[0], dtype=np.float32)

    return all_logits


def report(seconds: float, perplexity: float, answers: list[str], top_labels: list[str]) -> dict[str, Any]:
    """What a contender took and found."""
    return {"work_seconds": seconds, "perplexity": perplexity, "found": {"answers": answers, "top_labels": top_labels}}


if __name__ == "__main__":
    place, task, which, *limit = sys.argv[1:]
    assert which in CANDIDATES
    rows = read_jsonl(PREPARED / "test.jsonl")[: int(limit[0]) if limit else None]
    found = {"stage": stage, "loop": loop}[task](which, rows, Prompt.load(PREPARED))
    Path(place).write_text(json.dumps(found), encoding="utf-8")
