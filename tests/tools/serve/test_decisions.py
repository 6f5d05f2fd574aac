"""Decisions: the probabilities of options that the model's likelihoods give, in both formats, and OpenAI's client reads them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import BadRequestError

from benchmarks.serve.letters_model import PROMPT as TEXT
from tests.tools.serve.prompts import COLUMNS, with_prompt
from tests.tools.serve.served import Server, serving
from tools.serve.decisions.questions import Distribution
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.scoring import completion_scores, softmax
from tunepress.text.prompt import Prompt

LABELS = ("yes", "no", "not sure", "maybe")
STATE = "The parcel came late, but it came."
LABELLED = Prompt(TEXT.prompt, "{tone}\n", LABELS, source_max_len=100, max_new_tokens=12)
ANY_QUESTION = Prompt("{state}\n{instructions}\n{options}\nAnswer: ", "{answer}", None, source_max_len=200, max_new_tokens=12)
MODEL = "tunepress"


@pytest.fixture(scope="module")
def labels_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_prompt(folder, LABELLED, tmp_path_factory.mktemp("labels") / "onnx")


@pytest.fixture(scope="module")
def labels_server(labels_folder: Path) -> Iterator[Server]:
    with serving(labels_folder) as server:
        yield server


@pytest.fixture(scope="module")
def any_question_server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(with_prompt(folder, ANY_QUESTION, tmp_path_factory.mktemp("any") / "onnx")) as server:
        yield server


def likely(model: OnnxModel, prompt: str, completions: Sequence[str], temperature: float = 1.0) -> list[float]:
    """The probabilities of completions, computed here."""
    encoded = [model.encode_completion(text, prompt) for text in completions]
    ((_, scores),) = completion_scores(model, [(model.encode_prompt(prompt), encoded)])
    probabilities: list[float] = softmax(np.array([score.logprob for score in scores]) / temperature).tolist()
    return probabilities


def of_labels(model: OnnxModel, labels: Sequence[str]) -> list[float]:
    return likely(model, TEXT.render_prompt({"phrase": STATE}), [f"{label}\n" for label in labels])


def choice(*values: Any, **fields: Any) -> Any:
    return {"type": "choice", "instructions": "Which?", "choices": [{"value": value} for value in values], **fields}


def predicate(**fields: Any) -> Any:
    return {"type": "predicate", "instructions": "Is it late?", **fields}


def rating(*labels: str, **fields: Any) -> Any:
    return {"type": "score", "instructions": "How much?", "levels": [{"label": label} for label in labels], **fields}


def test_openais_client_gets_the_probabilities_of_labels(labels_server: Server, model: OnnxModel) -> None:
    questions = [choice(*LABELS, name="all"), choice("not sure", "no"), predicate(name="late"), rating("no", "not sure", "yes")]
    decision = labels_server.openai().decisions.create(model=MODEL, input=f" {STATE}\n", questions=questions)
    whole, part, late, scale = decision.answers
    assert whole.type == "choice"
    assert whole.name == "all"
    assert [entry.value for entry in whole.probabilities] == list(LABELS)
    expected = of_labels(model, LABELS)
    assert [entry.probability for entry in whole.probabilities] == pytest.approx(expected, rel=1e-4)
    assert whole.choice == LABELS[int(np.argmax(expected))]
    assert whole.confidence == pytest.approx((max(expected) - 1 / 4) / (1 - 1 / 4), rel=1e-4)
    assert part.type == "choice"
    assert part.name is None
    assert [entry.probability for entry in part.probabilities] == pytest.approx(of_labels(model, ["not sure", "no"]), rel=1e-4)
    assert late.type == "predicate"
    assert late.probability == pytest.approx(of_labels(model, ["yes", "no"])[0], rel=1e-4)
    levels = of_labels(model, ["no", "not sure", "yes"])
    assert scale.type == "score"
    assert scale.score == pytest.approx(levels[1] + 2 * levels[2], rel=1e-4)
    assert [(level.label, level.value) for level in scale.probabilities] == [("no", 0), ("not sure", 1), ("yes", 2)]
    prompt_tokens = len(model.encode_prompt(TEXT.render_prompt({"phrase": STATE})))  # once for all questions
    assert decision.usage.input_tokens == decision.usage.total_tokens == prompt_tokens
    assert decision.usage.output_tokens == 0
    assert decision.model == MODEL


def test_the_same_in_typesafes_format(labels_server: Server, model: OnnxModel) -> None:
    questions = {
        "which": {"type": "choice", "instructions": "Which?", "criteria": dict.fromkeys(LABELS)},
        "late": {"type": "noul", "instructions": {"ask": "late?"}, "criteria": {"true": "it is", "false": None}},
        "scale": {"type": "score", "instructions": "How much?", "criteria": ["no", "maybe", "yes"]},
    }
    response = labels_server.post("/v1/systemone", {"state": STATE, "questions": questions}).json()
    which, late, scale = (response["answers"][name] for name in questions)
    expected = of_labels(model, LABELS)
    assert which.pop("probabilities") == pytest.approx(dict(zip(LABELS, expected, strict=True)), rel=1e-4)
    assert which.pop("confidence") == pytest.approx((max(expected) - 1 / 4) / (1 - 1 / 4), rel=1e-4)
    assert which == {"type": "choice", "choice": LABELS[int(np.argmax(expected))]}
    assert late == {"type": "noul", "noul": pytest.approx(of_labels(model, ["yes", "no"])[0], rel=1e-4)}
    levels = of_labels(model, ["no", "maybe", "yes"])
    assert scale["legend"] == {"0": "no", "1": "maybe", "2": "yes"}
    assert scale["probabilities"] == pytest.approx({"0": levels[0], "1": levels[1], "2": levels[2]}, rel=1e-4)
    assert scale["score"] == pytest.approx(levels[1] + 2 * levels[2], rel=1e-4)
    assert response["usage"]["output_tokens"] == 0
    assert response["model"] == MODEL


def test_a_model_with_columns_for_them_answers_any_question_about_a_state_that_is_read_once(
    any_question_server: Server, model: OnnxModel
) -> None:
    def prompt(instructions: str, options: str) -> str:
        return f"{STATE}\n{instructions}\n{options}\nAnswer: "

    questions = [
        {
            "type": "choice",
            "instructions": "Who answers?",
            "choices": [{"value": "support", "description": "late parcels"}, {"value": "sales"}, {"value": True}],
        },
        predicate(),
        rating("calm", "calm but late", "cross"),
    ]
    decision = any_question_server.openai().decisions.create(model=MODEL, input=STATE, questions=questions)
    who, late, mood = decision.answers
    assert who.type == "choice"
    assert [entry.value for entry in who.probabilities] == ["support", "sales", True]
    prompts = [
        prompt("Who answers?", "support: late parcels\nsales\ntrue"),
        prompt("Is it late?", "yes\nno"),
        prompt("How much?", "calm\ncalm but late\ncross"),
    ]
    assert [entry.probability for entry in who.probabilities] == pytest.approx(
        likely(model, prompts[0], ["support", "sales", "true"]), abs=1e-4
    )
    assert late.type == "predicate"
    assert late.probability == pytest.approx(likely(model, prompts[1], ["yes", "no"])[0], abs=1e-4)
    assert mood.type == "score"
    assert [entry.probability for entry in mood.probabilities] == pytest.approx(
        likely(model, prompts[2], ["calm", "calm but late", "cross"]), abs=1e-4
    )
    assert decision.usage.input_tokens == sum(len(model.encode_prompt(text)) for text in prompts)
    body = {"state": {"state": STATE}, "questions": {"late": {"type": "noul", "instructions": "Is it late?"}}}
    many = [predicate(instructions=f"Is it {number}?") for number in range(17)]
    refused = any_question_server.post("/v1/decisions", {"input": STATE, "questions": many})
    assert refused.json()["error"]["message"] == "questions: this model reads 17 prompts for them, at most 16 are allowed"
    alone = any_question_server.post("/v1/systemone", body).json()["answers"]["late"]["noul"]
    assert alone == pytest.approx(late.probability, abs=1e-4)


def test_the_temperature_and_the_bound_of_the_model_are_used(labels_folder: Path, model: OnnxModel, tmp_path: Path) -> None:
    expected = likely(model, TEXT.render_prompt({"phrase": STATE}), [f"{label}\n" for label in LABELS], temperature=2.0)
    questions = [choice(*LABELS, name="x")]
    body = {"state": STATE, "questions": {"x": {"type": "choice", "instructions": "?", "criteria": dict.fromkeys(LABELS)}}}
    shipped = replace(LABELLED, temperature=2.0)
    with serving(with_prompt(labels_folder, shipped, tmp_path / "onnx")) as server:
        (answer,) = server.openai().decisions.create(model=MODEL, input=STATE, questions=questions).answers
        assert answer.type == "choice"
        assert [entry.probability for entry in answer.probabilities] == pytest.approx(expected, rel=1e-4)
    with serving(tmp_path / "onnx", "--abstain-below", str(max(expected) + 1e-3)) as server:
        (refused,) = server.openai().decisions.create(model=MODEL, input=STATE, questions=questions).answers
        assert (refused.type, refused.name) == ("refusal", "x")
        assert server.post("/v1/systemone", body).json()["answers"]["x"]["abstained"] is True
    with serving(tmp_path / "onnx", "--abstain-below", str(max(expected) - 1e-3)) as server:
        assert server.openai().decisions.create(model=MODEL, input=STATE, questions=questions).answers[0].type == "choice"
        assert server.post("/v1/systemone", body).json()["answers"]["x"]["abstained"] is False


def test_a_row_or_messages_are_an_input_too(
    labels_server: Server, folder: Path, chat_folder: Path, model: OnnxModel, tmp_path: Path
) -> None:
    noul = {"late": {"type": "noul", "instructions": "?"}}
    text = labels_server.post("/v1/systemone", {"state": STATE, "questions": noul}).json()
    assert labels_server.post("/v1/systemone", {"state": {"phrase": STATE}, "questions": noul}).json() == text
    message: Any = {"role": "user", "content": STATE}
    assert labels_server.post("/v1/systemone", {"state": [message], "questions": noul}).json() == text
    states: list[Any] = [{"parcel": {"late": True}}, ["late"], {"phrase": ["late"], "more": 1}]
    for state in states:
        as_json = labels_server.post("/v1/systemone", {"state": json.dumps(state), "questions": noul}).json()
        assert labels_server.post("/v1/systemone", {"state": state, "questions": noul}).json() == as_json
    refused = labels_server.post("/v1/systemone", {"state": {"phrase": ["late"]}, "questions": noul})
    assert refused.json()["error"]["message"] == "state.phrase: must be a text, a number or a boolean"
    message["content"] = [{"type": "input_text", "text": STATE[:9]}, {"type": "input_text", "text": STATE[9:]}]
    (late,) = labels_server.openai().decisions.create(model=MODEL, input=[message], questions=[predicate()]).answers
    assert late.type == "predicate"
    assert late.probability == text["answers"]["late"]["noul"]
    of_columns = replace(COLUMNS, labels=("yes", "no"))
    row = {"Question": "Is it late?", "First Name": "Zoë"}
    with serving(with_prompt(folder, of_columns, tmp_path / "columns")) as server:
        answer = server.post("/v1/systemone", {"state": row, "questions": noul}).json()["answers"]["late"]
        assert answer["noul"] == pytest.approx(likely(model, COLUMNS.render_prompt(row), ["yes", "no"])[0], rel=1e-4)
        refused = server.post("/v1/systemone", {"state": {"Question": "?"}, "questions": noul})
        assert refused.json()["error"]["message"].startswith("state: has no column 'First Name'")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"questions": [choice("yes", "joy")]},
            "questions.0: 'joy' is not a label of this model; its labels are yes, no, ",
        ),
        ({"questions": [choice("yes", "yes")]}, "questions.0.choice: the option 'yes' is there twice"),
        ({"questions": [choice("yes")]}, "questions.0.choice.choices: "),
        ({"questions": [choice("yes", " ")]}, "questions.0.choice.choices.1.value"),
        ({"questions": [choice("true", True)]}, "questions.0.choice: the option 'true' is there twice"),
        ({"questions": [rating("no", "no")]}, "questions.0.score: the option 'no' is there twice"),
        ({"questions": []}, "questions: "),
        ({"questions": [{"type": "box", "instructions": "?"}]}, "questions.0: "),
        ({"questions": [{"type": "predicate"}]}, "questions.0.predicate.instructions: is missing"),
        ({"questions": [predicate(criteria={})]}, "unknown parameter questions.0.predicate.criteria"),
        ({"questions": [predicate()], "input": " "}, "input."),
        ({"questions": [predicate()], "input": "x" * 5000}, "input has 5028 tokens, which leave no room"),
        ({"questions": [predicate()], "input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input."),
        ({"questions": [predicate()], "safety_identifier": "me"}, "unknown parameter safety_identifier"),
        ({"questions": [predicate()], "model": "other"}, "model: 'other' not found"),
    ],
)
def test_what_cannot_be_decided_is_refused_with_the_reason(body: dict[str, Any], message: str, labels_server: Server) -> None:
    refused = labels_server.post("/v1/decisions", {"input": STATE, **body})
    assert refused.status_code == (404 if "model" in body else 400)
    assert refused.json()["error"]["message"].startswith(message)


def test_a_model_of_other_labels_has_no_yes_and_no_and_one_of_free_text_no_options(
    folder: Path, server: Server, tmp_path: Path
) -> None:
    with pytest.raises(BadRequestError, match="was not trained to choose: it has no labels, and its prompt no columns"):
        server.openai().decisions.create(model=MODEL, input=STATE, questions=[predicate()])
    with serving(with_prompt(folder, replace(LABELLED, labels=("joy", "fear")), tmp_path / "onnx")) as of_tones:
        refused = of_tones.post("/v1/decisions", {"input": STATE, "questions": [predicate()]})
        assert refused.status_code == 400
        expected = "questions.0: this model has the labels joy, fear, not yes and no; ask for a choice of labels"
        assert refused.json()["error"]["message"] == expected


def test_what_a_distribution_says() -> None:
    even = Distribution.of([-1.0, -1.0, -1.0])
    assert (even.concentration, even.level, even.level_concentration) == pytest.approx((0, 1, 0), abs=1e-9)
    certain = Distribution.of([0.0, -1000.0, -1000.0])
    assert (certain.top, certain.concentration, certain.level, certain.level_concentration) == (0, 1, 0, 1)
    ends = Distribution.of([0.0, -1000.0, 0.0])  # further apart than equally likely levels
    assert (ends.level, ends.level_concentration) == (1, 0)
    assert Distribution.of([-2000.0, -2001.0]).probabilities == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))])
