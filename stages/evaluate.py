"""evaluate: lets one candidate (base, merged or onnx) answer the prompts of held-out rows, and scores answers and likelihoods.

    python -m stages.evaluate onnx

Each candidate runs in its own process, so that the peak memory is that of the candidate.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from hydra.utils import get_method

from tunepress.config.evaluate import Evaluate, Split, Turns
from tunepress.core.cpu import free_cores
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl, write_csv, write_json
from tunepress.core.paths import BASE, MERGED, METRICS, ONNX, PREDICTIONS, PREPARED
from tunepress.core.stage import run
from tunepress.inference.calibration import fit_temperature, label_metrics, label_probabilities
from tunepress.inference.metrics import Metric, Metrics, answer_metrics
from tunepress.inference.scoring import Likelihoods, Scorer, completion_logprobs, score
from tunepress.text.labels import find_label, score_name
from tunepress.text.prompt import Prompt
from tunepress.text.segments import Turn, evaluated

FIRST_TOKENS = 8  # of a paragraph, which are given
WINDOW = 512  # tokens of a paragraph that are read
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
    likelihoods = score(model, turns, prompt.labels, prompt.source_max_len)
    temperature = fitted_temperature(candidate, model, prompt) if cfg.evaluate.calibration else None
    predicted = predictions(answers, prompt.labels)
    metrics = measure(turns, predicted, prompt.labels, cfg.evaluate.confidence_level)
    metrics = {"split": cfg.evaluate.split.value, **metrics, "perplexity": round(likelihoods.perplexity, 4)}
    table = [
        {"source": turn.source, "prompt": turn.prompt, "expected": turn.expected, "predicted": prediction, "answer": answer}
        for turn, prediction, answer in zip(turns, predicted, answers, strict=True)
    ]
    if prompt.labels:
        metrics |= label_metrics(likelihoods, temperature, cfg.evaluate.abstain_below)
        likely = top_labels(likelihoods, prompt.labels, temperature)
        table = [row | columns for row, columns in zip(table, likely, strict=True)]
    if cfg.evaluate.retained:
        metrics["retained"] = retained(model, Path(cfg.evaluate.retained))
    if metric:
        metrics[metric.__name__] = compute_metric(metric, turns, answers)
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


def fitted_temperature(candidate: str, model: Candidate, prompt: Prompt) -> float | None:
    """The temperature of a candidate's probabilities: onnx is shipped with its own, and the base model has none."""
    if candidate == "onnx":
        return Prompt.load(ONNX).temperature
    return fit_temperature(model, prompt) if candidate == "merged" else None


def top_labels(likelihoods: Likelihoods, labels: Sequence[str], temperature: float | None) -> list[dict[str, str]]:
    """The most likely label of each turn with its probability, and the probability before the temperature if there is one."""
    confidences = {"confidence": temperature} | ({"raw_confidence": None} if temperature else {})
    columns = {name: label_probabilities(likelihoods.logprobs, value).max(axis=1) for name, value in confidences.items()}
    return [
        {"top_label": labels[choice]} | {name: f"{values[number]:.4f}" for name, values in columns.items()}
        for number, choice in enumerate(likelihoods.logprobs.argmax(axis=1))
    ]


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


def predictions(answers: list[str], labels: Sequence[str] | None) -> list[str]:
    """The label in each answer, or for free text the answer without white space around it."""
    return [find_label(answer, labels) if labels else answer.strip() for answer in answers]


def measure(turns: list[Turn], predicted: list[str], labels: Sequence[str] | None, confidence_level: float) -> Metrics:
    """The metrics of all answers, and under `datasets` the score of each of several datasets by its name."""
    metrics = answer_metrics([turn.expected for turn in turns], predicted, labels, confidence_level)
    by_name: dict[str, Metrics] = {}
    for name in dict.fromkeys(turn.name for turn in turns if turn.name):
        pairs = [(turn.expected, answer) for turn, answer in zip(turns, predicted, strict=True) if turn.name == name]
        expected, answers = map(list, zip(*pairs, strict=True))
        of_dataset = answer_metrics(expected, answers, labels, confidence_level)
        score = score_name(of_dataset)
        by_name[name] = {key: of_dataset[key] for key in ("rows", score, f"{score}_low", f"{score}_high")}
    return metrics | ({"datasets": by_name} if by_name else {})


def retained(model: Candidate, folder: Path) -> dict[str, Metrics]:
    """What a model knows of other subjects, by the name of the file: the perplexity of a text, the accuracy on questions.

    Raises:
        InputError: the folder has no such files, or a file is not valid.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix in (".txt", ".jsonl"))
    if not files:
        raise InputError(f"evaluate.retained: {folder} has no .txt or .jsonl file; name a folder that has, or null")
    return {file.stem: (text_metrics if file.suffix == ".txt" else choice_metrics)(model, file) for file in files}


def text_metrics(model: Candidate, file: Path) -> Metrics:
    """The perplexity of a text's paragraphs, each after its first tokens."""
    paragraphs = [model.encode_prompt(paragraph.strip())[:WINDOW] for paragraph in file.read_text(encoding="utf-8").split("\n\n")]
    requests = [(tokens[:FIRST_TOKENS], [tokens[FIRST_TOKENS:]]) for tokens in paragraphs if len(tokens) > FIRST_TOKENS]
    if not requests:
        raise InputError(f"{file}: has no paragraph of more than {FIRST_TOKENS} tokens")
    total = sum(logprobs[0] for _, logprobs in completion_logprobs(model, requests))
    tokens = sum(len(completion) for _, (completion,) in requests)
    return {"perplexity": round(math.exp(-total / tokens), 4), "tokens": tokens}


def choice_metrics(model: Candidate, file: Path) -> Metrics:
    """The share of questions whose right choice has the highest likelihood per character."""
    rows = read_jsonl(file)
    for number, row in enumerate(rows, start=1):
        choices, answer = row.get("choices"), row.get("answer")
        if not (isinstance(choices, list) and isinstance(answer, int) and 0 <= answer < len(choices) and row.get("prompt")):
            raise InputError(f"{file} row {number}: needs prompt, choices, and answer, the number of the right choice from 0")
        if len(choices) != len(rows[0]["choices"]):
            raise InputError(f"{file} row {number}: has {len(choices)} choices, and row 1 has {len(rows[0]['choices'])}")
    requests = []
    for row in rows:
        choices = [model.encode_completion(f" {choice}", row["prompt"])[:-1] for choice in row["choices"]]  # without their end
        requests.append((model.encode_prompt(row["prompt"]), choices))
    right = 0
    for index, logprobs in completion_logprobs(model, requests):
        scores = [logprob / len(choice) for logprob, choice in zip(logprobs, rows[index]["choices"], strict=True)]
        right += scores.index(max(scores)) == rows[index]["answer"]
    return {"accuracy": round(right / len(rows), 4), "rows": len(rows)}


if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in CANDIDATES:
        sys.exit(f"evaluate: name a candidate: python -m stages.evaluate {{{','.join(CANDIDATES)}}}")
    run(f"evaluate_{sys.argv[1]}", partial(main, sys.argv[1]), Config, sys.argv[2:])
