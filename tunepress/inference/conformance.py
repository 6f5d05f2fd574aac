"""conformance.jsonl: what a built model answers where it was made, so that a copy of it can prove itself on another machine.

The first line has the sha256 of each of the model's files, and how much the answers of another machine may differ. Each other
line has a prompt as the model reads it, the greedy answer, and probabilities: those of the labels, or that of the answer.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from tunepress.core.environment import installed_versions
from tunepress.core.errors import InputError, one_line
from tunepress.core.files import sha256, write_jsonl
from tunepress.core.paths import CONFORMANCE
from tunepress.inference.calibration import answer_probabilities
from tunepress.inference.scoring import completion_scores
from tunepress.text.chat_prompt import ChatPrompt
from tunepress.text.prompt import Prompt
from tunepress.text.tokenizer import Tokens

if TYPE_CHECKING:  # a stage imports onnxruntime-genai when it needs it
    from tunepress.inference.onnx_model import OnnxModel

FILE_NAME = CONFORMANCE.name
FORMAT = 1
MAX_NEW_TOKENS = 32  # of an answer
NO_LABEL = "token"  # in `probabilities` of a model without labels
PUBLISHED_WITH = {FILE_NAME, "LICENSE", "summary.json"}  # what may be in a model's folder and is not read, as any *.md

Check = tuple[Callable[[Any], bool], str]  # of a value in the file, and what it must be


@dataclass(frozen=True)
class Tolerance:
    """How much a machine that rounds differently may change.

    Attributes:
        probability: the largest change of a probability.
        answers: the smallest share of equal answers.
    """

    probability: float
    answers: float


# docs/serving.md has the measurements. After one other token a free text goes on differently, so its probability counts.
OF_LABELS, OF_TEXTS = Tolerance(0.1, 0.9), Tolerance(0.05, 0.03)


@dataclass(frozen=True)
class Header:
    """The first line.

    Attributes:
        model: the sha256 of each file by its path in the model's folder.
        tolerance: of the comparison.
        max_new_tokens: of an answer.
        packages: of onnxruntime, with their versions.
    """

    model: dict[str, str]
    tolerance: Tolerance
    max_new_tokens: int
    packages: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """A prompt and what a model makes of it.

    Attributes:
        prompt: the whole text that the model reads.
        tokens: of the greedy answer, with its end.
        answer: its text.
        probabilities: of each label, after the temperature. A model without labels alone has NO_LABEL: the geometric mean of the
            probabilities of the recorded answer's tokens.
    """

    prompt: str
    tokens: Tokens
    answer: str
    probabilities: dict[str, float]


def answer_prompts(
    model: "OnnxModel", folder: Path, prompts: list[str], max_new_tokens: int, recorded: list[Tokens] | None = None
) -> list[Answer]:
    """What a model makes of prompts.

    Args:
        model: to ask.
        folder: from which it was loaded.
        prompts: as the model reads them.
        max_new_tokens: of an answer.
        recorded: an answer to each prompt, of whose tokens the probability is measured; by default the model's own.
    """
    prompt, completions, answers = Prompt.load(folder), label_completions(folder), []
    for index, text in enumerate(tqdm(prompts, desc="conformance", unit="prompt")):
        encoded = model.encode_prompt(text)
        tokens = list(model.generate(encoded, max_new_tokens, prompt.guidance))
        if completions:
            choices = [model.encode_completion(completion, text) for completion in completions]
            values = answer_probabilities(model, encoded, choices, prompt.temperature)
            probabilities = dict(zip(prompt.labels or (), values, strict=True))
        else:
            probabilities = {NO_LABEL: token_probability(model, encoded, recorded[index] if recorded else tokens)}
        rounded = {name: round(value, 6) for name, value in probabilities.items()}
        answers.append(Answer(text, tokens, model.decode(tokens), rounded))
    return answers


def label_completions(folder: Path) -> tuple[str, ...]:
    """What a model writes for each label; nothing if it has no labels, or more than a label is its answer."""
    prompt = Prompt.load(folder)
    return (ChatPrompt(folder, prompt).label_completions() or ()) if prompt.labels else ()


def token_probability(model: "OnnxModel", prompt: Tokens, answer: Tokens) -> float:
    """The geometric mean of the probabilities of an answer's tokens."""
    ((_, (score,)),) = completion_scores(model, [(prompt, [answer])])
    return math.exp(score.logprob / len(answer))


def record(path: Path, model: "OnnxModel", folder: Path, prompts: list[str]) -> None:
    """Writes conformance.jsonl for a model, with those of the prompts that leave room for an answer in its context."""
    max_new_tokens = min(Prompt.load(folder).max_new_tokens, MAX_NEW_TOKENS)
    fitting = [text for text in prompts if len(model.encode_prompt(text)) + max_new_tokens <= model.context_length]
    tolerance = OF_LABELS if label_completions(folder) else OF_TEXTS
    header = Header(model_files(folder), tolerance, max_new_tokens, packages())
    answers = answer_prompts(model, folder, fitting, max_new_tokens)
    write_jsonl(path, [{"format": FORMAT, **asdict(header)}, *map(asdict, answers)])


def packages() -> dict[str, str]:
    """The installed packages of onnxruntime and their versions."""
    return {name: version for name, version in installed_versions().items() if name.startswith("onnxruntime")}


def model_files(folder: Path) -> dict[str, str]:
    """The sha256 of each of a model's files by its path in the folder. Hidden files and texts about the model do not count."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix(): sha256(folder / path) for path in paths if not _is_beside(path)}


def beside(folder: Path, name: str) -> Path:
    """The path of a file beside a model's folder, wherever a symbolic link of the folder points."""
    return (folder if folder.name not in ("", "..") else folder.resolve()).with_name(name)


def recorded_path(folder: Path) -> Path:
    """conformance.jsonl in a model's folder, or the one beside it."""
    inside = folder / FILE_NAME
    return inside if inside.exists() else beside(folder, FILE_NAME)


def _is_beside(path: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in path.parts)
    return is_hidden or path.suffix == ".md" or path.as_posix() in PUBLISHED_WITH


def read(path: Path) -> tuple[Header, list[Answer]]:
    """Reads a file of `record`.

    Raises:
        InputError: it does not exist, is not valid or has no prompts.
    """
    if not path.is_file():
        raise InputError(f"{path}: not found; copy it from beside the model's folder where the model was built")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8; copy it again from where the model was built") from error
    head = _checked(path, 1, lines[0], HEADER)
    header = Header(head["model"], Tolerance(**head["tolerance"]), head["max_new_tokens"], head["packages"])
    answers = [Answer(**_checked(path, number, line, ANSWER)) for number, line in enumerate(lines[1:], start=2) if line]
    if not answers:
        raise InputError(f"{path}: has no prompts, because none fits the model's context; there is nothing to verify")
    return header, answers


def _checked(path: Path, number: int, line: str, checks: dict[str, Check]) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} line {number}: not JSON ({one_line(error)}); copy the file again from where the model was built"
        ) from error
    values = content if isinstance(content, dict) else {}
    for name, (is_valid, kind) in checks.items():
        if not is_valid(values.get(name)):
            raise InputError(
                f"{path} line {number}: {name} must be {kind}; copy the file again from where the model was built, or use the "
                "version of Tunepress that wrote it"
            )
    return {name: values.get(name) for name in checks if name != "format"}


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_object(value: Any, is_valid: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and len(value) > 0 and all(map(is_valid, value.values()))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


HEADER: dict[str, Check] = {
    "format": (lambda value: type(value) is int and value == FORMAT, str(FORMAT)),
    "model": (lambda value: _is_object(value, _is_text), "an object of files and their sha256"),
    "tolerance": (
        lambda value: _is_object(value, _is_number) and value.keys() == {"probability", "answers"},
        "an object of probability and answers, from 0 to 1",
    ),
    "max_new_tokens": (lambda value: type(value) is int and value > 0, "an integer above 0"),
    "packages": (lambda value: _is_object(value, _is_text), "an object of packages and their versions"),
}
ANSWER: dict[str, Check] = {
    "prompt": (_is_text, "a text"),
    "tokens": (
        lambda value: (
            isinstance(value, list) and len(value) > 0 and all(type(token) is int and 0 <= token < 2**31 for token in value)
        ),
        "a list of integers",
    ),
    "answer": (_is_text, "a text"),
    "probabilities": (lambda value: _is_object(value, _is_number), "an object of labels and their probabilities"),
}
