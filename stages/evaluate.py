"""evaluate: asks one candidate (base, merged or onnx) the test rows' prompts and measures its answers.

    python -m stages.evaluate onnx

Each candidate runs in a process of its own, so its peak memory is its own.
"""

import csv
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stages.lib.answers import Figures, classification, generation, label_of
from stages.lib.edge.errors import InputError
from stages.lib.edge.outputs import read_jsonl, replacing, write_json
from stages.lib.edge.paths import BASE, MERGED, METRICS, ONNX, PREDICTIONS, PREPARED
from stages.lib.edge.stage import run
from stages.lib.prompt import Prompt
from stages.lib.schema.evaluate import Evaluate

CANDIDATES = {"base": BASE, "merged": MERGED, "onnx": ONNX}


@dataclass
class Sections:
    """What this stage reads of params.yaml."""

    evaluate: Evaluate


def main(candidate: str, cfg: Sections) -> str:
    """Evaluates one candidate on data/prepared/test.jsonl."""
    if cfg.evaluate.batch_size < 1 or not 0 < cfg.evaluate.confidence_level < 1:
        raise InputError("evaluate: batch_size must be 1 or more and confidence_level between 0 and 1")
    prompt = Prompt.load(PREPARED)
    rows = read_jsonl(PREPARED / "test.jsonl")
    if not rows:
        raise InputError(f"{PREPARED / 'test.jsonl'}: no rows; set data.test_size or data.test_files")
    answers = ask(candidate, [row["prompt"] for row in rows], prompt.max_new_tokens, cfg.evaluate.batch_size)
    predictions, figures = measure(rows, answers, prompt, cfg.evaluate.confidence_level)
    write_predictions(PREDICTIONS / f"{candidate}.csv", predictions)
    write_json(METRICS / "evaluate" / f"{candidate}.json", figures)
    name = "accuracy" if prompt.labels else "exact_match"
    return f"{name} {figures[name]:.3f} on {len(rows)} rows"


def ask(candidate: str, prompts: list[str], max_new_tokens: int, batch_size: int) -> list[str]:
    """The candidate's greedy answers. Only its own runtime is imported: the int4 model needs no torch."""
    folder = CANDIDATES[candidate]
    if candidate == "onnx":
        from stages.lib.onnx_model import OnnxModel

        return OnnxModel(folder).answers(prompts, max_new_tokens)
    from stages.lib.torch_model import TorchModel

    return TorchModel(folder, batch_size).answers(prompts, max_new_tokens)


def measure(
    rows: list[dict[str, Any]], answers: list[str], prompt: Prompt, confidence_level: float
) -> tuple[list[dict[str, str]], Figures]:
    """Predictions row by row, and their figures."""
    expected = [row["expected"] for row in rows]
    if prompt.labels:
        predicted = [label_of(answer, prompt.labels) for answer in answers]
        figures = classification(expected, predicted, prompt.labels, confidence_level)
    else:
        predicted = [answer.strip() for answer in answers]
        figures = generation(expected, predicted, confidence_level)
    predictions = [
        {"source": row["source"], "prompt": row["prompt"], "expected": row["expected"], "predicted": said, "answer": answer}
        for row, said, answer in zip(rows, predicted, answers, strict=True)
    ]
    return predictions, figures


def write_predictions(path: Path, predictions: list[dict[str, str]]) -> None:
    """Writes a CSV that `dvc plots` draws as a confusion matrix. All is quoted: an answer may hold any character."""
    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(predictions[0]), lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(predictions)


if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in CANDIDATES:
        sys.exit(f"evaluate: names no candidate; use python -m stages.evaluate {{{','.join(CANDIDATES)}}}")
    run(f"evaluate_{sys.argv[1]}", partial(main, sys.argv[1]), Sections, sys.argv[2:])
