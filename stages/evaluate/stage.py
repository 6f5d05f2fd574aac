"""evaluate: lets one candidate (base, merged or onnx) answer the prompts of held-out rows, and scores answers and likelihoods.

    python -m stages.evaluate onnx

Each candidate runs in its own process, so that the peak memory is that of the candidate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.utils import get_method

from stages.evaluate.retained import retained
from tunepress.config.evaluate import Evaluate, Guidance, Split, Turns
from tunepress.core.cpu import free_cores
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl, write_csv, write_json
from tunepress.core.paths import BASE, MERGED, METRICS, ONNX, PREDICTIONS, PREPARED
from tunepress.inference.calibration import fit_temperature, label_metrics, label_probabilities
from tunepress.inference.guidance import answer_grammar
from tunepress.inference.metrics import Metric, Metrics, Predictions, answer_metrics, comparable
from tunepress.inference.scoring import Likelihoods, Model, Scorer, score
from tunepress.text.labels import score_name
from tunepress.text.prompt import Prompt
from tunepress.text.segments import Turn, evaluated

CANDIDATES = {"base": BASE, "merged": MERGED, "onnx": ONNX}
ROWS_FROM = {Split.test: "data.test_size or data.test_files", Split.validation: "data.eval_dataset_size or data.validation_files"}


@dataclass
class Config:
    evaluate: Evaluate


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
    prompts = [turn.prompt for turn in turns]
    free = model.answers(prompts, prompt.max_new_tokens)
    grammar = grammar_of(candidate, cfg.evaluate.guidance, prompt) if cfg.evaluate.guidance else None
    answers = model.answers(prompts, prompt.max_new_tokens, grammar) if grammar else free
    likelihoods = score(model, turns, prompt.labels, prompt.source_max_len)
    temperature = fitted_temperature(candidate, model, prompt) if cfg.evaluate.calibration else None
    table = predictions(turns, answers, prompt)
    metrics = measure(turns, table, prompt, cfg.evaluate.confidence_level)
    metrics = {"split": cfg.evaluate.split.value, **metrics, "perplexity": round(likelihoods.perplexity, 4)}
    if grammar:
        metrics["unguided"] = measure(turns, predictions(turns, free, prompt), prompt, cfg.evaluate.confidence_level)
    if prompt.labels:
        metrics |= label_metrics(likelihoods, temperature, cfg.evaluate.abstain_below)
        likely = top_labels(likelihoods, prompt.labels, temperature)
        table = [row | columns for row, columns in zip(table, likely, strict=True)]
    folder = Path(cfg.evaluate.retained) if cfg.evaluate.retained else None
    if folder or cfg.evaluate.tasks:
        metrics["retained"] = (retained(model, folder) if folder else {}) | harness_tasks(model, cfg.evaluate.tasks, folder)
    if metric:
        metrics[metric.__name__] = compute_metric(metric, turns, answers)
    write_csv(PREDICTIONS / f"{candidate}.csv", table, list(table[0]))
    write_json(METRICS / "evaluate" / f"{candidate}.json", metrics)
    name = score_name(metrics)
    return f"{name} {metrics[name]:.3f} on {len(turns)} {cfg.evaluate.split.value} rows"


def load(candidate: str, batch_size: int, eos_token_ids: Sequence[int] = ()) -> Model:
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


def grammar_of(candidate: str, guidance: Guidance, prompt: Prompt) -> str | None:
    """The grammar of a candidate's answers: onnx is shipped with its own."""
    if candidate == "onnx":
        return Prompt.load(ONNX).guidance
    from tunepress.models.hf_model import load_encoder

    folder = CANDIDATES[candidate]
    return answer_grammar(guidance, prompt, folder, load_encoder(folder, prompt.eos_token_ids))


def fitted_temperature(candidate: str, model: Scorer, prompt: Prompt) -> float | None:
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


def predictions(turns: list[Turn], answers: list[str], prompt: Prompt) -> list[dict[str, str]]:
    """The rows of predictions/, with the answers as they are compared and as they were given."""
    return [
        {
            "source": turn.source,
            "prompt": turn.prompt,
            "expected": comparable(turn.expected, prompt),
            "predicted": comparable(answer, prompt),
            "answer": answer,
        }
        for turn, answer in zip(turns, answers, strict=True)
    ]


def measure(turns: list[Turn], table: Predictions, prompt: Prompt, confidence_level: float) -> Metrics:
    """The metrics of all answers, and under `datasets` the score of each of several datasets by its name."""

    def metrics(rows: Predictions) -> Metrics:
        expected, predicted = ([row[column] for row in rows] for column in ("expected", "predicted"))
        return answer_metrics(expected, predicted, prompt, confidence_level)

    by_name: dict[str, Metrics] = {}
    for name in dict.fromkeys(turn.name for turn in turns if turn.name):
        of_dataset = metrics([row for turn, row in zip(turns, table, strict=True) if turn.name == name])
        score = score_name(of_dataset)
        by_name[name] = {key: of_dataset[key] for key in ("rows", score, f"{score}_low", f"{score}_high")}
    return metrics(table) | ({"datasets": by_name} if by_name else {})


def harness_tasks(model: Model, names: Sequence[str], folder: Path | None) -> dict[str, Metrics]:
    """The accuracy or the perplexity on tasks of lm-evaluation-harness.

    Raises:
        InputError: the harness is not installed, or a task cannot be measured.
    """
    if not names:
        return {}
    try:
        from stages.evaluate.harness import measure_tasks
    except ModuleNotFoundError as error:
        raise InputError(f"evaluate.tasks: needs lm-evaluation-harness ({error}); run `make setup-harness`") from error
    return measure_tasks(model, names, folder)
