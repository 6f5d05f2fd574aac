"""Conversations through all stages: training, evaluation, prediction, the model card and transformers render the same bytes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from tokenizers import processors
from transformers import AutoTokenizer

from stages import compare
from stages.build import stage as build
from stages.evaluate import stage as evaluate
from stages.merge import stage as merge
from stages.prepare import stage as prepare
from stages.report.model_card import snippet
from stages.train import stage as train
from tests.stages.recipes import MERGE, evaluation, recipe
from tests.stages.training import new_project, sections
from tools.cli import predict, verify
from tunepress.config.data import Data
from tunepress.config.evaluate import Turns
from tunepress.core.files import read_csv, read_json, read_jsonl, write_jsonl
from tunepress.core.paths import CONFORMANCE, MERGED, METRICS, ONNX, PREDICTIONS, PREPARED
from tunepress.inference.onnx_model import OnnxModel
from tunepress.text.chat_prompt import ChatPrompt
from tunepress.text.conversation import normalize
from tunepress.text.prompt import Prompt
from tunepress.text.segments import turns

pytestmark = pytest.mark.usefixtures("one_thread")

TEMPLATE = (
    "{{ bos_token }}{{ strftime_now('%d %b %Y') }}\n{% if not enable_thinking %}no thoughts\n{% endif %}"
    "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}"
    "{% for message in messages %}[{{ message.role }}]\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments | tojson }}){% endfor %}"
    "<|end|>\n{% endfor %}{% if add_generation_prompt %}[assistant]\n{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "status", "description": "Où?", "parameters": {"type": "object"}}}
SYSTEM = {"role": "system", "content": "Be brief."}


def conversation(number: int) -> list[dict[str, Any]]:
    """Two turns of the assistant, of which the first is a call."""
    call = {"name": "status", "arguments": json.dumps({"order": f"A{number}"})}
    return [
        SYSTEM,
        {"role": "user", "content": f"Where is A{number}? 🎉"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": "1", "content": "late" if number % 2 else "in the van"},
        {"role": "assistant", "content": "It is late." if number % 2 else "It is in the van."},
    ]


@pytest.fixture(scope="module")
def base(tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a tokenizer that begins each text with BOS, as Llama's does."""
    folder = tmp_path_factory.mktemp("bos") / "base"
    folder.mkdir()
    for file in tiny_phi3.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = "<|user|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|user|> $A", special_tokens=[("<|user|>", tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def project(root: Path, base: Path, one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder in which prepare, train, merge and an fp32 build have run."""
    folder = tmp_path_factory.mktemp("conversations")
    new_project(folder, base)
    (folder / "template.jinja").write_text(TEMPLATE, encoding="utf-8")
    write_jsonl(folder / "rows.jsonl", [{"messages": conversation(number), "tools": [TOOL]} for number in range(12)])
    values: dict[str, Any] = {
        "files": ["rows.jsonl"],
        "chat_template": "template.jinja",
        "chat_template_kwargs": {"enable_thinking": False},
    }
    split: dict[str, Any] = {"eval_dataset_size": 0.0, "test_size": 0.5}
    settings = OmegaConf.load(root / "conf/data/conversations.yaml")
    data = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Data), settings, values | split))
    assert isinstance(data, Data)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        prepare.main(prepare.Config(data, 0))
        train.main(sections(root, eval_strategy="no"))
        merge.main(merge.Config(MERGE))
        build.main(build.Config(recipe("fp32"), MERGE, evaluation()))
    return folder


@pytest.fixture(autouse=True)
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(project)
    yield


def test_prompt_json_has_what_all_conversations_have(base: Path) -> None:
    prompt = Prompt.load(ONNX)
    assert prompt == Prompt.load(PREPARED) == Prompt.load(MERGED)
    assert (prompt.prompt, prompt.completion, prompt.labels) == (None, None, None)
    assert (prompt.chat_template, prompt.chat_template_kwargs) == (TEMPLATE, {"enable_thinking": False})
    assert (prompt.system, prompt.tools, prompt.bos_token) == ("Be brief.", [TOOL], "<|user|>")
    assert AutoTokenizer.from_pretrained(base).convert_tokens_to_ids("<|end|>") in prompt.eos_token_ids


def test_every_stage_and_program_renders_the_same_bytes() -> None:
    messages = {f"rows.jsonl row {number + 1}": conversation(number) for number in range(12)}
    rows = [row for name in ("train", "test") for row in read_jsonl(PREPARED / f"{name}.jsonl")]
    assert len(rows) == 12
    served, merged = ChatPrompt(ONNX, Prompt.load(ONNX)), AutoTokenizer.from_pretrained(MERGED)
    for row in rows:
        first, second = turns(row)
        for turn, end in ((first, 2), (second, 4)):
            history = messages[turn.source][:end]
            assert turn.prompt == served.render(history, [TOOL]).prompt == served.render_text(json.dumps(history))
            objects = normalize(history)  # with arguments as objects, which transformers leaves as they are
            whole = merged.apply_chat_template(objects, tools=[TOOL], tokenize=False, add_generation_prompt=True)
            assert whole == "<|user|>" + turn.prompt
        assert first.expected == f"status({messages[row['source']][2]['tool_calls'][0]['function']['arguments']})"
        assert second.expected == messages[row["source"]][4]["content"]
        assert [turn.completion for turn in (first, second)] == [f"{turn.expected}<|end|>" for turn in (first, second)]
    assert (ONNX / "chat_template.jinja").read_bytes() == (MERGED / "chat_template.jinja").read_bytes()
    assert served.render_text("Where?") == served.render([SYSTEM, {"role": "user", "content": "Where?"}], [TOOL]).prompt


@pytest.mark.parametrize("which", Turns)
def test_turns_are_evaluated_and_compared_from_their_true_history(which: Turns, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read_jsonl(PREPARED / "test.jsonl")
    expected = [turn for row in rows for turn in (turns(row) if which is Turns.all else turns(row)[-1:])]
    assert len(expected) == (12 if which is Turns.all else 6)
    for candidate in ("merged", "onnx"):
        evaluate.main(candidate, evaluate.Config(evaluation(turns=which)))
        predictions = read_csv(PREDICTIONS / f"{candidate}.csv")
        for name in ("source", "prompt", "expected"):
            assert [row[name] for row in predictions] == [getattr(turn, name) for turn in expected]
    figures = {name: read_json(METRICS / "evaluate" / f"{name}.json") for name in ("merged", "onnx")}
    assert figures["onnx"]["perplexity"] == pytest.approx(figures["merged"]["perplexity"], rel=1e-4)
    from_rows = which is Turns.all
    compare.main(compare.Config(evaluation(turns=which, conformance_rows=from_rows)))
    compared = read_json(METRICS / "compare.json")
    assert (compared["rows"], compared["tokenized_differently"]) == (len(expected), 0)
    chat = ChatPrompt(ONNX, Prompt.load(ONNX))
    recorded = [turn.prompt for turn in expected] if from_rows else list(map(chat.render_text, compare.SENTENCES))
    assert [line["prompt"] for line in read_jsonl(CONFORMANCE)[1:]] == recorded
    assert verify.verify(ONNX).startswith(f"{len(recorded)} of {len(recorded)} answers as recorded")
    assert compared["tokens"] == sum(len(turn.expected.encode()) + 1 for turn in expected)
    assert compared["mean_kl"] < 1e-6
    capsys.readouterr()
    messages = [conversation(int(row["source"].rpartition(" ")[2]) - 1) for row in rows]
    predict.predict([json.dumps(chat[:-1]) for chat in messages], ONNX)
    answers = [row["answer"].strip() for row in read_csv(PREDICTIONS / "onnx.csv")]
    assert capsys.readouterr().out == "".join(f"{answer}\n" for answer in (answers[1::2] if which is Turns.all else answers))


def test_the_model_cards_snippet_runs_and_says_what_predict_says() -> None:
    prompt = Prompt.load(ONNX)
    command = [sys.executable, "-X", "utf8", "-c", snippet(prompt, adapter=False)]
    done = subprocess.run(command, cwd=ONNX.parent, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    question = ChatPrompt(ONNX, prompt).render_text("your question")
    assert done.stdout == OnnxModel(ONNX).answer(question, prompt.max_new_tokens) + "\n"
