"""The task of benchmarks.int4: compares int4 models with the merged model on the held-out rows."""

from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from tunepress.core.files import read_jsonl
from tunepress.core.paths import PREPARED
from tunepress.inference.calibration import fit_temperature, label_metrics
from tunepress.inference.metrics import mcnemar
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.scoring import Likelihoods, Logits, Scorer, agreement, encode_request, score, token_logprobs
from tunepress.inference.torch_model import TorchModel
from tunepress.text.prompt import Prompt
from tunepress.text.segments import evaluated
from tunepress.text.tokenizer import Tokens

BATCH_SIZE = 16

Rows = list[tuple[Tokens, list[Tokens]]]  # a prompt and its one completion


def compare(folders: list[str]) -> dict[str, Any]:
    """Figures of each folder's model, the merged one first; runs in a folder laid out like the project, after the stages."""
    merged, *others = map(Path, folders)
    model, prompt = TorchModel(merged, BATCH_SIZE), Prompt.load(PREPARED)
    turns = evaluated(read_jsonl(PREPARED / "test.jsonl"), all_turns=False)
    rows = [encode_request(model, turn.prompt, [turn.completion], prompt.source_max_len) for turn in turns]
    reference, labels = logits_of(model, rows), score(model, turns, prompt.labels, prompt.source_max_len)
    merged_right = right_rows(reference, rows)
    models = [figures(reference, merged_right, rows) | probabilities(model, prompt, labels)]
    for folder in others:
        onnx = OnnxModel(folder)
        logits, onnx_labels = logits_of(onnx, rows), score(onnx, turns, prompt.labels, prompt.source_max_len)
        right = right_rows(logits, rows)
        test = mcnemar(merged_right, right)
        differing = {"only_merged_right": test["only_first_right"], "only_onnx_right": test["only_second_right"]}
        flipped = {"flipped_share": float((labels.logprobs.argmax(1) != onnx_labels.logprobs.argmax(1)).mean())}
        measured = figures(logits, right, rows) | agreements(reference, logits) | differing
        models.append(measured | flipped | probabilities(onnx, prompt, onnx_labels))
    return {"models": models}


def probabilities(model: Scorer, prompt: Prompt, likelihoods: Likelihoods) -> dict[str, Any]:
    """The metrics of the probabilities of labels, before and after the temperature of the validation rows."""
    return label_metrics(likelihoods, fit_temperature(model, prompt), None) if prompt.labels else {}


def logits_of(model: Scorer, rows: Rows) -> list[Logits]:
    """Each row's logits of its completion's tokens, [tokens, vocabulary]."""
    parts = {number: [logits for _, _, logits in chunks] for number, chunks in groupby(model.logits(rows), itemgetter(0))}
    return [np.concatenate(parts[number]) for number in range(len(rows))]


def right_rows(logits: list[Logits], rows: Rows) -> list[bool]:
    """Of each row whether the model writes the completion when it takes the most probable token each time, its end aside."""
    return [bool((row.argmax(-1) == completion)[:-1].all()) for row, (_, (completion,)) in zip(logits, rows, strict=True)]


def figures(logits: list[Logits], right: list[bool], rows: Rows) -> dict[str, Any]:
    """Rows, those that are right, and the perplexity of the completions."""
    likelihoods = [token_logprobs(row, completion) for row, (_, (completion,)) in zip(logits, rows, strict=True)]
    return {"rows": len(rows), "right": sum(right), "perplexity": float(np.exp(-np.concatenate(likelihoods).mean()))}


def agreements(reference: list[Logits], logits: list[Logits]) -> dict[str, Any]:
    """How far a model's choices are from merged's."""
    pairs = [agreement(first, second) for first, second in zip(reference, logits, strict=True)]
    tokens = sum(map(len, reference))
    return {
        "tokens": tokens,
        "top1_agreement": sum(same for same, _ in pairs) / tokens,
        "mean_kl": sum(nats for _, nats in pairs) / tokens,
    }
