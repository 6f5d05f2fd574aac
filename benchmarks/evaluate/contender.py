"""The contenders of benchmarks.evaluate, each called in a process of its own, in a folder laid out like the project."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from stages.evaluate.stage import load
from tunepress.core.files import read_jsonl
from tunepress.core.paths import PREPARED
from tunepress.inference.scoring import Logits, score, token_logprobs
from tunepress.text.prompt import Prompt
from tunepress.text.segments import evaluated
from tunepress.text.tokenizer import Tokens

BATCH_SIZE = 16  # of params.yaml's default

AllLogits = Callable[[Tokens], Logits]  # of a text's tokens, [tokens, vocabulary]


def stage(candidate: str, limit: int | None) -> dict[str, Any]:
    """As the stage does it."""
    turns, prompt = evaluated(read_jsonl(PREPARED / "test.jsonl")[:limit], all_turns=False), Prompt.load(PREPARED)
    model = load(candidate, BATCH_SIZE)
    start = time.perf_counter()
    answers = model.answers([turn.prompt for turn in turns], prompt.max_new_tokens)
    likelihoods = score(model, turns, prompt.labels, prompt.source_max_len)
    seconds = time.perf_counter() - start
    labels = [(prompt.labels or [""])[choice] for choice in likelihoods.logprobs.argmax(axis=1)]
    return result(seconds, likelihoods.perplexity, answers, labels)


def loop(candidate: str, limit: int | None) -> dict[str, Any]:
    """One row after the other."""
    turns, prompt = evaluated(read_jsonl(PREPARED / "test.jsonl")[:limit], all_turns=False), Prompt.load(PREPARED)
    model = load(candidate, 1)
    all_logits = torch_logits(model) if candidate == "merged" else onnx_logits(model)
    start = time.perf_counter()
    answers, labels, total, tokens = [], [], 0.0, 0
    for turn in turns:
        answers.extend(model.answers([turn.prompt], prompt.max_new_tokens))
        prompt_tokens = model.encode_prompt(turn.prompt)
        sums = {}
        for label in prompt.labels or [turn.expected]:
            completion = model.encode_completion(turn.with_answer(label), turn.prompt)
            logits = all_logits([*prompt_tokens, *completion])[len(prompt_tokens) - 1 : -1]
            sums[label] = float(token_logprobs(logits, completion).sum())
            tokens += len(completion) if label == turn.expected else 0
        labels.append(max(sums, key=lambda label: sums[label]))
        total += sums[turn.expected]
    seconds = time.perf_counter() - start
    return result(seconds, float(np.exp(-total / tokens)), answers, labels)


def torch_logits(candidate: Any) -> AllLogits:
    """Through transformers."""
    import torch

    def all_logits(tokens: Tokens) -> Logits:
        with torch.inference_mode():
            logits: Logits = candidate.model(input_ids=torch.tensor([tokens])).logits[0].float().numpy()
            return logits

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


def result(seconds: float, perplexity: float, answers: list[str], labels: list[str]) -> dict[str, Any]:
    """What a contender reports."""
    return {"work_seconds": seconds, "perplexity": perplexity, "results": {"answers": answers, "labels": labels}}
