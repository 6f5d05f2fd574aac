"""A model of conversations: messages, calls of functions and their results, texts and labels."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from transformers import AutoTokenizer

from stages.evaluate import stage as evaluate
from tests.stages.recipes import evaluation
from tests.tools.serve.prompts import with_prompt
from tests.tools.serve.served import ROOT, Server, serving
from tunepress.core.files import write_jsonl
from tunepress.core.paths import ONNX, PREDICTIONS, PREPARED
from tunepress.inference.onnx_model import OnnxModel
from tunepress.text.chat_prompt import ChatPrompt
from tunepress.text.labels import INVALID
from tunepress.text.prompt import Prompt
from tunepress.text.segments import context, learned

CHATML = (ROOT / "conf/chat_templates/chatml.jinja").read_text(encoding="utf-8")
TEXTS = ["What a day!", "Ça va? 🎉", "two words", "雨", "[1, 2]", '[{"role": "user", "content": "And now?"}]']
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "status", "description": "Où?", "parameters": {"type": "object"}},
}
CONVERSATION: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is A1?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "status", "arguments": '{"order": "A1 é"}'}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": '{"state": "in the van"}'},
    {"role": "assistant", "content": "In the van."},
    {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "B2?"}]},
]


@pytest.fixture(scope="module")
def prompt(model: OnnxModel, folder: Path) -> Prompt:
    """One with two labels that the model names for some of the texts."""
    unlabelled = Prompt(None, None, None, 300, 12, chat_template=CHATML, system="Be brief.")
    chat = ChatPrompt(folder, unlabelled)
    answers = [model.answer(chat.render_text(text), 12) for text in TEXTS]
    first = [match[0] for match in (re.match(r"\w+", answer) for answer in answers) if match]
    labels = ("joy", first[0], next(word for word in first if word.lower() != first[0].lower()))
    return Prompt(None, None, labels, 300, 12, chat_template=CHATML, system="Be brief.")


@pytest.fixture(scope="module")
def project(prompt: Prompt, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the model, which the stage has evaluated on TEXTS."""
    project = tmp_path_factory.mktemp("conversations")
    chat = ChatPrompt(with_prompt(folder, prompt, project / ONNX), prompt)
    assert prompt.labels
    end = learned(f"{prompt.labels[1]}<|im_end|>", prompt.labels[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        prompt.save(project / PREPARED)
        rows = [{"source": text, "segments": [context(chat.render_text(text)), end]} for text in TEXTS]
        write_jsonl(PREPARED / "test.jsonl", rows)
        evaluate.main("onnx", evaluate.Config(evaluation()))
    return project


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[Server]:
    with serving(project / ONNX) as running:
        yield running


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tools", [[TOOL], None], ids=["tools", "no tools"])
@pytest.mark.parametrize("length", [2, 4, 6])
def test_calls_and_their_results_are_rendered_as_transformers_does(
    length: int, tools: list[ChatCompletionToolParam] | None, stream: bool, server: Server, folder: Path, model: OnnxModel
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder.parent / "base")
    messages: list[Any] = [dict(message) for message in CONVERSATION[:length]]
    if length == 6:
        messages[-1]["content"] = "And B2?"
    text = tokenizer.apply_chat_template(messages, tools=tools, chat_template=CHATML, tokenize=False, add_generation_prompt=True)
    assert ("status" in text) == (tools is not None or length > 2)
    expected = model.answer(text, 12)
    create = server.openai().chat.completions.create
    options: dict[str, Any] = {"model": "tunepress", "messages": CONVERSATION[:length]} | ({"tools": tools} if tools else {})
    if stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in create(**options, stream=True)) == expected
    else:
        completion = create(**options)
        assert completion.choices[0].message.content == expected
        assert completion.usage
        assert completion.usage.prompt_tokens == len(model.encode_prompt(text))


def test_the_arguments_of_a_call_may_be_an_object(server: Server) -> None:
    answers = []
    for arguments in ('{"order": "A1"}', {"order": "A1"}):
        call = {"role": "assistant", "tool_calls": [{"function": {"name": "status", "arguments": arguments}}]}
        messages = [CONVERSATION[1], call, {"role": "tool", "content": "late"}]
        response = server.post("/v1/chat/completions", {"messages": messages})
        assert response.status_code == 200
        answers.append(response.json()["choices"][0]["message"]["content"])
    assert answers[0] == answers[1]


def test_the_last_message_is_the_users_or_a_result(server: Server) -> None:
    refused = server.post("/v1/chat/completions", {"messages": CONVERSATION[:3]})
    assert refused.status_code == 400
    message = "messages: the last must be the user's, or the result of a tool"
    assert (refused.json()["error"]["message"], refused.json()["error"]["param"]) == (message, "messages")


def test_texts_are_classified_as_evaluate_recorded(project: Path, prompt: Prompt, server: Server) -> None:
    with (project / PREDICTIONS / "onnx.csv").open(newline="", encoding="utf-8") as file:
        recorded = list(csv.DictReader(file))
    assert {row["predicted"] for row in recorded} >= {*(prompt.labels or ())[1:], INVALID}
    response = server.post("/v1/classify", {"texts": TEXTS, "likelihoods": True}).json()
    for row, result in zip(recorded, response["data"], strict=True):
        assert result["label"] == (None if row["predicted"] == INVALID else row["predicted"])
        assert result["answer"] == row["answer"].strip()
        assert result["top_label"] == row["top_label"]
        assert f"{result['probabilities'][result['top_label']]:.4f}" == row["confidence"]


@pytest.mark.parametrize("body", [{"row": {"phrase": "a"}}, {"rows": [{"phrase": "a"}]}])
def test_a_row_of_columns_is_refused(body: dict[str, Any], server: Server) -> None:
    refused = server.post("/v1/classify", body)
    assert refused.status_code == 400
    message = f"{next(iter(body))}: this model answers conversations and has no columns; send text or texts"
    assert refused.json()["error"]["message"] == message
