"""Classification: the labels and likelihoods that the stage evaluate finds."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serve.letters_model import PROMPT as TEXT
from stages.evaluate import stage as evaluate
from tests.stages.recipes import evaluation
from tests.tools.serve.prompts import COLUMNS, relabelled, with_prompt
from tests.tools.serve.served import Server, serving
from tools.serve.__main__ import parse
from tools.serve.service import Service
from tunepress.core.errors import InputError
from tunepress.core.files import write_jsonl
from tunepress.core.paths import ONNX, PREDICTIONS, PREPARED
from tunepress.inference.onnx_model import OnnxModel
from tunepress.text.labels import INVALID
from tunepress.text.prompt import Prompt
from tunepress.text.segments import context, learned

TEXTS = ["What a day!", "Ça va? 🎉", "  two words \n", "雨", "{phrase}", '{"phrase": "no column"}']


@pytest.fixture(scope="module")
def prompt(model: OnnxModel) -> Prompt:
    """One with two labels that the model names for some of the texts, as letters at random will not."""
    answers = [model.answer(TEXT.render_prompt({"phrase": text.strip()}), 12) for text in TEXTS]
    first = [match[0] for match in (re.match(r"\w+", answer) for answer in answers) if match]
    labels = ("joy", first[0], next(word for word in first if word.lower() != first[0].lower()))
    return relabelled(Prompt(TEXT.prompt, "{tone}\n", None, 100, 12), labels)


@pytest.fixture(scope="module")
def project(prompt: Prompt, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the model, which the stage has evaluated on TEXTS."""
    project = tmp_path_factory.mktemp("project")
    with_prompt(folder, prompt, project / ONNX)
    assert prompt.labels
    right = prompt.labels[1]
    rows = [
        {"source": text, "segments": [context(prompt.render_prompt({"phrase": text.strip()})), learned(f"{right}\n", right)]}
        for text in TEXTS
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        prompt.save(project / PREPARED)
        write_jsonl(PREPARED / "test.jsonl", rows)
        evaluate.main("onnx", evaluate.Config(evaluation()))
    return project


@pytest.fixture(scope="module")
def labels_server(project: Path) -> Any:
    with serving(project / ONNX) as server:
        yield server


def test_labels_and_likelihoods_are_those_that_evaluate_recorded(project: Path, prompt: Prompt, labels_server: Server) -> None:
    with (project / PREDICTIONS / "onnx.csv").open(newline="", encoding="utf-8") as file:
        recorded = list(csv.DictReader(file))
    assert {row["predicted"] for row in recorded} >= {*(prompt.labels or ())[1:], INVALID}
    response = labels_server.post("/v1/classify", {"texts": TEXTS, "likelihoods": True}).json()
    for number, (row, result) in enumerate(zip(recorded, response["data"], strict=True)):
        assert result["index"] == number
        assert result["label"] == (None if row["predicted"] == INVALID else row["predicted"])
        assert result["answer"] == row["answer"].strip()
        assert result["top_label"] == row["top_label"]
        assert f"{result['probabilities'][result['top_label']]:.4f}" == row["confidence"]
        assert list(result["probabilities"]) == list(prompt.labels or ())
        assert sum(result["probabilities"].values()) == pytest.approx(1)


@pytest.fixture(scope="module")
def certain(project: Path, prompt: Prompt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with a temperature and a bound below which it abstains."""
    shipped = replace(prompt, temperature=2.0, abstain_below=0.999)
    return with_prompt(project / ONNX, shipped, tmp_path_factory.mktemp("certain") / "onnx")


def test_probabilities_have_the_temperature_and_a_text_below_the_bound_has_no_label(
    certain: Path, prompt: Prompt, labels_server: Server
) -> None:
    before = labels_server.post("/v1/classify", {"texts": TEXTS, "likelihoods": True}).json()["data"]
    expected = []
    for raw in before:
        roots = {label: probability**0.5 for label, probability in raw["probabilities"].items()}
        expected.append({label: root / sum(roots.values()) for label, root in roots.items()})
    bound = sum(sorted(max(probabilities.values()) for probabilities in expected)[2:4]) / 2  # half of the texts are below
    with serving(certain, "--abstain-below", str(bound)) as server:
        after = server.post("/v1/classify", {"texts": TEXTS}).json()["data"]  # probabilities are there without being requested
    for raw, probabilities, result in zip(before, expected, after, strict=True):
        assert result["probabilities"] == pytest.approx(probabilities)
        assert result["abstained"] == (max(probabilities.values()) < bound)
        assert result["label"] == (None if result["abstained"] else raw["label"])
    assert [result["abstained"] for result in after].count(True) == 3
    with serving(certain) as server:  # with the bound of prompt.json
        assert all(result["abstained"] for result in server.post("/v1/classify", {"texts": TEXTS}).json()["data"])
    with serving(certain, "--abstain-below", "0") as server:
        never = server.post("/v1/classify", {"texts": TEXTS}).json()["data"]
    assert never == [{key: raw[key] for key in ("index", "label", "answer")} for raw in before]


def test_a_model_with_a_grammar_answers_within_it_except_where_the_text_may_be_any(
    project: Path, prompt: Prompt, labels_server: Server, tmp_path: Path
) -> None:
    guided = replace(prompt, guidance='start: ("joy" | "fear") "\\n"')
    free = labels_server.post("/v1/completions", {"prompt": TEXTS}).json()["choices"]
    with serving(with_prompt(project / ONNX, guided, tmp_path / "onnx")) as server:
        assert {result["answer"] for result in server.post("/v1/classify", {"texts": TEXTS}).json()["data"]} <= {"joy", "fear"}
        chat = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": TEXTS[0]}]}).json()
        assert chat["choices"][0]["message"]["content"] in ("joy\n", "fear\n")
        assert server.post("/v1/completions", {"prompt": TEXTS}).json()["choices"] == free


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ("0.5", "--abstain-below: this model has no probabilities of labels alone; leave it out"),
        ("1", "--abstain-below: must be a probability below 1, got 1.0; 0 never abstains"),
    ],
)
def test_a_bound_that_cannot_be_kept_is_refused_at_the_start(bound: str, message: str, folder: Path) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        settings = parse(["--model", str(folder), "--abstain-below", bound])
        settings.check()
        Service(settings)


def test_one_text_is_answered_as_one_of_many_and_without_likelihoods_if_nobody_asks(labels_server: Server) -> None:
    many = labels_server.post("/v1/classify", {"texts": TEXTS}).json()
    assert [set(result) for result in many["data"]] == [{"index", "label", "answer"}] * len(TEXTS)
    for text, result in zip(TEXTS, many["data"], strict=True):
        (alone,) = labels_server.post("/v1/classify", {"text": text, "model": "tunepress"}).json()["data"]
        (as_row,) = labels_server.post("/v1/classify", {"row": {"phrase": text.strip()}}).json()["data"]
        assert alone == as_row == {**result, "index": 0}
    assert many["usage"]["prompt_tokens"] > many["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "send exactly one of text, texts, row and rows"),
        ({"text": "a", "texts": ["a"]}, "send exactly one of text, texts, row and rows"),
        ({"text": " \n"}, "text: is empty"),
        ({"text": ""}, "text: "),
        ({"text": 5}, "text: "),
        ({"texts": []}, "texts: "),
        ({"texts": ["a", "b\0"]}, "texts.1: contains a NUL character"),
        ({"texts": ["a"] * 17}, "texts: has 17 items, at most 16 are allowed"),
        ({"row": {"Phrase": "a"}}, "row: has no column 'phrase'; its columns are 'phrase'"),
        ({"row": {"phrase": "a", "tone": "joy"}}, "row: the model's prompt has no column 'tone'"),
        ({"row": {"phrase": " "}}, "row: is empty"),
        ({"row": {"phrase": None}}, "row.phrase"),
        ({"rows": [{"phrase": "a"}, {"phrase": ["a"]}]}, "rows.1.phrase"),
        ({"text": "a", "temperature": 1}, "unknown parameter temperature"),
        ({"text": "a", "likelihoods": "yes"}, "likelihoods: "),
    ],
)
def test_what_is_no_text_is_refused_with_the_reason(body: dict[str, Any], message: str, labels_server: Server) -> None:
    refused = labels_server.post("/v1/classify", body)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith(message)


def test_a_model_without_labels_says_so(server: Server) -> None:
    refused = server.post("/v1/classify", {"text": "a"})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "this model answers in free text and has no labels; use /v1/completions"


def test_a_model_of_columns_is_asked_with_rows_and_knows_no_likelihoods_of_an_answer_that_goes_on(
    folder: Path, tmp_path: Path, model: OnnxModel
) -> None:
    prompt = Prompt(COLUMNS.prompt, "{Best Answer} because {Reason}", ("yes", "no"), 100, 12)
    row = {"Question": "Is it {5}?", "First Name": 7}
    with serving(with_prompt(folder, prompt, tmp_path / "onnx")) as server:
        results = server.post("/v1/classify", {"rows": [row, {**row, "First Name": "Zoë"}]}).json()["data"]
        assert [result["answer"] for result in results] == [
            model.answer(f"Is it {{5}}? ({name})\n", 12).strip() for name in ("7", "Zoë")
        ]
        assert "a JSON object" in server.post("/v1/classify", {"text": "plain"}).json()["error"]["message"]
        assert server.post("/v1/classify", {"text": '{"Question": "?", "First Name": "x"}'}).status_code == 200
        refused = server.post("/v1/classify", {"row": row, "likelihoods": True})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "likelihoods"
