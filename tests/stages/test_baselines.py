"""baselines: what cheaper methods answer, which of them apply to the rows, and what the base model is prompts."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import baselines
from stages.baselines import Baselines
from tests.stages.recipes import evaluation
from tests.stages.training import new_project
from tunepress.config.evaluate import Baseline
from tunepress.core.files import read_json, write_jsonl
from tunepress.core.paths import METRICS, PREDICTIONS
from tunepress.inference.scoring import Likelihoods
from tunepress.inference.torch_model import TorchModel
from tunepress.text.prompt import Prompt
from tunepress.text.segments import Turn, context, learned

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = {"joy": ("lovely", "great"), "fear": ("dark", "scary")}
LABELS = ("joy", "fear")


def row(number: int, name: str, labels: bool) -> dict[str, Any]:
    """A row whose words tell its label, or a question whose answer is in a like question."""
    label = LABELS[number % 3 % 2]  # two of three are joy
    text = (
        f"Text: a {WORDS[label][number % 2]} day number {number}\nTone: "
        if labels
        else f"Q: how far is town {number % 8} {name}?\nA: "
    )
    answer = label if labels else f"{number % 8} miles"
    return {"source": f"{name} row {number}", "segments": [context(text), learned(answer, answer)], "sequence": number}


@pytest.fixture
def prepared(tiny_phi3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Prompt]:
    """Makes the working folder a project with prepared rows, with labels or with free text."""

    def make(labels: bool) -> Prompt:
        folder = new_project(tmp_path, tiny_phi3)
        for name, count in (("train", 24), ("test", 12)):
            write_jsonl(folder / f"{name}.jsonl", [row(number, name, labels) for number in range(count)])
        prompt = Prompt("Text: {text}\nTone: ", "{tone}", LABELS if labels else None, source_max_len=100, max_new_tokens=6)
        prompt.save(folder)
        monkeypatch.chdir(tmp_path)
        return prompt

    return make


def test_labels(prepared: Callable[[bool], Prompt]) -> None:
    prepared(True)
    line = baselines.main(baselines.Config(evaluation()))
    metrics, speeds = read_json(METRICS / "baselines.json"), read_json(METRICS / "benchmark/baselines.json")
    assert list(metrics) == list(speeds) == ["majority", "tfidf", "zero_shot", "few_shot"]
    assert (metrics["majority"]["accuracy"], metrics["tfidf"]["accuracy"]) == (0.6667, 1.0)
    assert metrics["tfidf"]["accuracy_low"] < 1.0 == metrics["tfidf"]["accuracy_high"]
    assert line.startswith("majority 0.667, tfidf 1.000, zero_shot 0.") and line.endswith(" on 12 test rows")
    assert speeds["tfidf"]["size_mb"] > 0 < speeds["zero_shot"]["ms_per_answer"]
    with (PREDICTIONS / "baselines.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [line["tfidf"] for line in rows] == [line["expected"] for line in rows]
    assert {line["majority"] for line in rows} == {"joy"}
    assert {line["few_shot"] for line in rows} <= set(LABELS)


def test_the_same_rows_give_the_same_files(prepared: Callable[[bool], Prompt]) -> None:
    prepared(True)
    files = METRICS / "baselines.json", PREDICTIONS / "baselines.csv"
    contents = set()
    for _ in range(2):
        baselines.main(baselines.Config(evaluation()))
        contents.add(tuple(file.read_bytes() for file in files))
    assert len(contents) == 1


def test_free_text(prepared: Callable[[bool], Prompt]) -> None:
    prepared(False)
    baselines.main(baselines.Config(evaluation()))
    metrics = read_json(METRICS / "baselines.json")
    assert list(metrics) == ["nearest", "zero_shot", "few_shot"]
    assert metrics["nearest"]["exact_match"] == 1.0


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("labels", "conversations", "training", "names"),
    [
        (True, False, True, ["majority", "tfidf", "zero_shot", "few_shot"]),
        (True, False, False, ["zero_shot"]),
        (False, False, True, ["nearest", "zero_shot", "few_shot"]),
        (False, True, True, ["nearest"]),
        (True, True, True, ["majority", "tfidf"]),
        (False, True, False, []),
    ],
)
def test_a_baseline_is_measured_where_it_applies(labels: bool, conversations: bool, training: bool, names: list[str]) -> None:
    prompt = Prompt(None if conversations else "{a}", "{b}", LABELS if labels else None, source_max_len=9)
    rows = [Turn("row 1", "a", "b", "b")] if training else []
    chosen = Baselines(prompt, rows, [], 4, 2)
    assert [name.value for name in Baseline if chosen.applies(name)] == names


@pytest.mark.usefixtures("inside")
def test_rows_in_chat_markup_are_those_of_base() -> None:
    prompt = Prompt("<|user|>\n{a}<|end|>\n<|assistant|>\n", "{b}", LABELS, source_max_len=9)
    chosen = Baselines(prompt, [Turn("row 1", "a", "b", "b")], [], 4, 2)
    assert [name.value for name in Baseline if chosen.applies(name)] == ["majority", "tfidf"]


def questions(monkeypatch: pytest.MonkeyPatch, n_shot: int) -> list[str]:
    """What the base model is asked about the first row."""
    prompts: list[str] = []

    def score(model: TorchModel, turns: list[Turn], labels: Any) -> Any:
        prompts.append(turns[0].prompt)
        return Likelihoods(np.zeros((len(turns), len(labels))), np.zeros(len(turns), dtype=int), 1)

    monkeypatch.setattr(baselines, "score", score)
    baselines.main(baselines.Config(replace(evaluation(), n_shot=n_shot)))
    return prompts


def test_the_base_model_is_asked_in_its_own_chat_template(
    prepared: Callable[[bool], Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(True)
    zero_shot, few_shot = questions(monkeypatch, n_shot=2)
    instruction, question = "Answer with one of these and nothing else: joy, fear.\n\n", "Text: a lovely day number 0\nTone:"
    assert zero_shot == f"<|user|>\n{instruction}{question}<|end|>\n<|assistant|>\n"
    assert few_shot.startswith(f"<|user|>\n{instruction}Text: a lovely day")
    assert few_shot.endswith(f"<|user|>\n{question}<|end|>\n<|assistant|>\n")
    assert few_shot.count("<|assistant|>\njoy<|end|>") == 2  # the rows with the most similar words


def test_examples_that_do_not_fit_the_context_are_left_out(
    prepared: Callable[[bool], Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(True)
    monkeypatch.setattr(baselines.TorchModel, "__init__", short_context)
    zero_shot, few_shot = questions(monkeypatch, n_shot=12)
    assert 0 < few_shot.count("<|user|>") - zero_shot.count("<|user|>") < 12


original = TorchModel.__init__


def short_context(self: TorchModel, *arguments: Any, **options: Any) -> None:
    original(self, *arguments, **options)
    self.context_length = 500
