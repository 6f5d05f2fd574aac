"""What a model knows of other subjects: the perplexity of texts and the accuracy on questions with choices."""

import math
from pathlib import Path

from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl
from tunepress.inference.metrics import Metrics
from tunepress.inference.scoring import Scorer, completion_scores

FIRST_TOKENS = 8  # of a paragraph, which are given
WINDOW = 512  # tokens of a paragraph that are read


def retained(model: Scorer, folder: Path) -> dict[str, Metrics]:
    """What a model knows of other subjects, by the name of the file: the perplexity of a text, the accuracy on questions.

    Raises:
        InputError: the folder has no such files, or a file is not valid.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix in (".txt", ".jsonl"))
    if not files:
        raise InputError(f"evaluate.retained: {folder} has no .txt or .jsonl file; name a folder that has, or null")
    return {file.stem: (text_metrics if file.suffix == ".txt" else choice_metrics)(model, file) for file in files}


def text_metrics(model: Scorer, file: Path) -> Metrics:
    """The perplexity of a text's paragraphs, each after its first tokens."""
    paragraphs = [model.encode_prompt(paragraph.strip())[:WINDOW] for paragraph in file.read_text(encoding="utf-8").split("\n\n")]
    requests = [(tokens[:FIRST_TOKENS], [tokens[FIRST_TOKENS:]]) for tokens in paragraphs if len(tokens) > FIRST_TOKENS]
    if not requests:
        raise InputError(f"{file}: has no paragraph of more than {FIRST_TOKENS} tokens")
    total = sum(completion.logprob for _, (completion,) in completion_scores(model, requests))
    tokens = sum(len(completion) for _, (completion,) in requests)
    return {"perplexity": round(math.exp(-total / tokens), 4), "tokens": tokens}


def choice_metrics(model: Scorer, file: Path) -> Metrics:
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
    for index, scores in completion_scores(model, requests):
        per_character = [score.logprob / len(choice) for score, choice in zip(scores, rows[index]["choices"], strict=True)]
        right += per_character.index(max(per_character)) == rows[index]["answer"]
    return {"accuracy": round(right / len(rows), 4), "rows": len(rows)}
