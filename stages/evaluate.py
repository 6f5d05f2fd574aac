"""evaluate: lets one candidate (base, merged or onnx) answer the prompts of held-out rows, and scores answers and likelihoods.

    python -m stages.evaluate onnx

Each candidate runs in its own process, so that the peak memory is that of the candidate.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from hydra.utils import get_method

from tunepress.config.evaluate import Evaluate, Split, Turns
from tunepress.core.cpu import free_cores
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl, write_csv, write_json
from tunepress.core.paths import BASE, MERGED, METRICS, ONNX, PREDICTIONS, PREPARED
from tunepress.core.stage import run
from tunepress.inference.metrics import Metric, Metrics, classification_metrics, generation_metrics
from tunepress.inference.scoring import Scorer, score
from tunepress.text.labels import find_label, score_name
from tunepress.text.prompt import Prompt
from tunepress.text.segments import Turn, evaluated

CANDIDATES = {"base": BASE, "merged": MERGED, "onnx": ONNX}
ROWS_FROM = {Split.test: "data.test_size or data.test_files", Split.validation: "data.eval_dataset_size or data.validation_files"}


@dataclass
class Config:
    evaluate: Evaluate


class Candidate(Scorer, Protocol):
    """A model that can be evaluated."""

    def answers(self, prompts: list[str], max_new_tokens: int) -> list[str]:
        """Greedy answers, in the order of `prompts`."""


def main(candidate: str, cfg: Config) -> str:
    """Evaluates one candidate on the rows of evaluate.split."""
    if cfg.evaluate.batch_size < 1 or not 0 < cfg.evaluate.confidence_level < 1:
        raise InputError("evaluate: batch_size must be at least 1 and confidence_level between 0 and 1")
    metric = load_metric(cfg.evaluate.metric)
    prompt = Prompt.load(PREPARED)
    file = PREPARED / f"{cfg.evaluate.split.value}.jsonl"
    turns = evaluated(read_jsonl(file), cfg.evaluate.turns is Turns.all)
    if not turns:
        raise InputError(f"{file}: no rows; set {ROWS_FROM[cfg.evaluate.split]}")
    model = load(candidate, cfg.evaluate.batch_size, prompt.eos_token_ids)
    answers = model.answers([turn.prompt for turn in turns], prompt.max_new_tokens)
    top_labels, likelihoods = score(model, turns, prompt.labels, prompt.source_max_len)
    predictions, metrics = evaluate_answers(turns, answers, prompt, cfg.evaluate.confidence_level)
    metrics |= metrics_by_name(turns, answers, prompt, cfg.evaluate.confidence_level)
    metrics = {"split": cfg.evaluate.split.value} | metrics | likelihoods
    if metric:
        metrics[metric.__name__] = compute_metric(metric, turns, answers)
    table = [prediction | top_label for prediction, top_label in zip(predictions, top_labels, strict=True)]
    write_csv(PREDICTIONS / f"{candidate}.csv", table, list(table[0]))
    write_json(METRICS / "evaluate" / f"{candidate}.json", metrics)
    name = score_name(metrics)
    return f"{name} {metrics[name]:.3f} on {len(turns)} {cfg.evaluate.split.value} rows"


def load(candidate: str, batch_size: int, eos_token_ids: Sequence[int] = ()) -> Candidate:
    """Loads a candidate's model. Only its own runtime is imported: the int4 model needs no torch.

    Args:
        candidate: a name in CANDIDATES.
        batch_size: batch size of base and merged.
        eos_token_ids: the tokens that end an answer of base and merged; the ONNX model has them in genai_config.json.
    """
    if candidate == "onnx":
        from tunepress.inference.onnx_model import OnnxModel

        return OnnxModel(ONNX, free_cores())
    from tunepress.inference.torch_model import TorchModel

    return TorchModel(CANDIDATES[candidate], batch_size, eos_token_ids)


def load_metric(name: str | None) -> Metric | None:
    """Imports the user's own metric, if one is named.

    Raises:
        InputError: there is no such function.
    """
    if name is None:
        return None
    try:
        return get_method(name)
    except Exception as error:  # whatever importing the user's module raises
        message = str(error.__cause__ or error).splitlines()[0]
        raise InputError(f"evaluate.metric: {name} is not a function that can be imported ({message})") from error


def compute_metric(metric: Metric, turns: list[Turn], answers: list[str]) -> float:
    """Computes the user's own metric.

    Raises:
        InputError: it fails or does not return a number.
    """
    try:
        return round(float(metric([turn.expected for turn in turns], answers)), 4)
    except Exception as error:
        message = (str(error).splitlines() or [""])[0]
        raise InputError(f"evaluate.metric: {metric.__name__} failed ({type(error).__name__}: {message})") from error


def evaluate_answers(
    turns: list[Turn], answers: list[str], prompt: Prompt, confidence_level: float
) -> tuple[list[dict[str, str]], Metrics]:
    """Returns the prediction of each turn, and the metrics of all."""
    expected = [turn.expected for turn in turns]
    if prompt.labels:
        predicted = [find_label(answer, prompt.labels) for answer in answers]
        metrics = classification_metrics(expected, predicted, prompt.labels, confidence_level)
    else:
        predicted = [answer.strip() for answer in answers]
        metrics = generation_metrics(expected, predicted, confidence_level)
    predictions = [
        {"source": turn.source, "prompt": turn.prompt, "expected": turn.expected, "predicted": prediction, "answer": answer}
        for turn, prediction, answer in zip(turns, predicted, answers, strict=True)
    ]
    return predictions, metrics


def metrics_by_name(turns: list[Turn], answers: list[str], prompt: Prompt, confidence_level: float) -> Metrics:
    """The metrics of each of several datasets by its name, under `datasets`; empty if the rows have no names."""
    by_name: dict[str, Metrics] = {}
    for name in dict.fromkeys(turn.name for turn in turns if turn.name):
        numbers = [number for number, turn in enumerate(turns) if turn.name == name]
        members, replies = [turns[number] for number in numbers], [answers[number] for number in numbers]
        _, metrics = evaluate_answers(members, replies, prompt, confidence_level)
        score = score_name(metrics)
        by_name[name] = {key: metrics[key] for key in ("rows", score, f"{score}_low", f"{score}_high")}
    return {"datasets": by_name} if by_name else {}


if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in CANDIDATES:
        sys.exit(f"evaluate: name a candidate: python -m stages.evaluate {{{','.join(CANDIDATES)}}}")
    run(f"evaluate_{sys.argv[1]}", partial(main, sys.argv[1]), Config, sys.argv[2:])
