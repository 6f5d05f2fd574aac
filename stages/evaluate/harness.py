"""Tasks of lm-evaluation-harness, through its public model interface: `make setup-harness` installs it.

A prompt is computed once for all its choices, where the harness's own Hugging Face backend computes it again for each.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate, utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from tunepress.core.errors import InputError, one_line
from tunepress.inference.scoring import Model, Score, completion_scores
from tunepress.text.tokenizer import Tokens

ACCURACY = ("acc_norm", "acc", "exact_match")  # metrics of tasks, the first that a task has
PERPLEXITY = ("word_perplexity", "perplexity")
MAX_NEW_TOKENS = 256  # of an answer, where a task sets none; as in the harness's Hugging Face backend
WINDOW = 2048  # tokens, of a model that does not name the length of its context


def measure_tasks(model: Model, names: Sequence[str], folder: Path | None) -> dict[str, dict[str, float | int]]:
    """The accuracy or the perplexity of a model on tasks, by name.

    Args:
        model: to measure.
        names: of tasks.
        folder: with tasks of one's own in YAML; None: only those of the harness.

    Raises:
        InputError: a task does not exist, cannot be loaded, or has neither an accuracy nor a perplexity.
    """
    tasks = task_manager(names, folder)
    if unknown := sorted(set(names) - set(tasks.all_tasks)):
        raise InputError(f"evaluate.tasks: {unknown[0]} is not a task of lm-evaluation-harness, nor of a YAML file in {folder}")
    try:
        results = simple_evaluate(
            HarnessModel(model), tasks=list(names), task_manager=tasks, bootstrap_iters=0, log_samples=False
        )
    except Exception as error:  # whatever a task raises, such as the datasets library without a network
        raise InputError(f"evaluate.tasks: {', '.join(names)}: {one_line(error)}") from error
    return {name: _metric(name, results["results"][name], results["n-samples"]) for name in names}


def task_manager(names: Sequence[str], folder: Path | None) -> TaskManager:
    """The tasks of a folder if these are all, otherwise those of the harness too, whose files it takes 8 seconds to read."""
    own = TaskManager(include_path=str(folder), include_defaults=False) if folder else None
    if own and set(names) <= set(own.all_tasks):
        return own
    return TaskManager(include_path=str(folder) if folder else None)


def _metric(name: str, result: dict[str, Any], samples: dict[str, dict[str, int]]) -> dict[str, float | int]:
    values = {key.partition(",")[0]: value for key, value in result.items() if isinstance(value, float)}
    rows = samples.get(name, {}).get("effective")
    for ours, theirs in {"accuracy": ACCURACY, "perplexity": PERPLEXITY}.items():
        if key := next((key for key in theirs if key in values), None):
            return {ours: round(values[key], 4)} | ({"rows": rows} if rows else {})
    raise InputError(f"evaluate.tasks: {name} has none of the metrics {', '.join((*ACCURACY, *PERPLEXITY))}")


class HarnessModel(LM):
    """A model as lm-evaluation-harness asks it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model, self._window = model, model.context_length or WINDOW

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        return list(self._scores([self._encode(*request.args) for request in requests]))

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        windows, owners = [], []
        for number, request in enumerate(requests):
            tokens = self._model.encode_prompt(request.args[0])
            for window in utils.get_rolling_token_windows(tokens, self._model.bos_token_id, self._window, context_len=1):
                windows.append(utils.make_disjoint_window(window))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, score in zip(owners, self._scores(windows), strict=True):
            totals[number] += score.logprob
        return totals

    def generate_until(self, requests: list[Instance]) -> list[str]:
        by_length: dict[int, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            by_length[int(request.args[1].get("max_gen_toks", MAX_NEW_TOKENS))].append(number)
        answers = [""] * len(requests)
        for length, numbers in by_length.items():
            generated = self._model.answers([requests[number].args[0] for number in numbers], length)
            for number, answer in zip(numbers, generated, strict=True):
                answers[number] = _until(answer, requests[number].args[1].get("until"))
        return answers

    def _encode(self, prompt: str, completion: str) -> tuple[Tokens, Tokens]:
        """The tokens of a prompt and its completion. White space between them belongs to the completion, as in the harness."""
        text = prompt.rstrip()
        completion = prompt[len(text) :] + completion
        tokens = self._model.encode_completion(completion, text)[:-1]  # without the end
        return self._model.encode_prompt(text) if text else [self._model.bos_token_id], tokens

    def _scores(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[Score]:
        """The score of each completion. Equal prompts are computed once."""
        places: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, (prompt, completion) in enumerate(pairs):
            places[tuple(prompt[-max(1, self._window - len(completion)) :])].append(number)
        scores = [Score(0.0, greedy=True)] * len(pairs)
        by_count: dict[int, list[tuple[Tokens, list[int]]]] = defaultdict(list)  # a model takes equally many for each prompt
        for tokens, numbers in places.items():
            by_count[len(numbers)].append((list(tokens), numbers))
        for group in by_count.values():
            requests = [(prompt, [pairs[number][1] for number in numbers]) for prompt, numbers in group]
            for index, of_prompt in completion_scores(self._model, requests):
                for number, score in zip(group[index][1], of_prompt, strict=True):
                    scores[number] = score
        return scores


def _until(answer: str, stops: str | Sequence[str] | None) -> str:
    """An answer up to the first of the texts that end it."""
    for stop in filter(None, [stops] if isinstance(stops, str) else stops or ()):
        answer = answer.partition(stop)[0]
    return answer
