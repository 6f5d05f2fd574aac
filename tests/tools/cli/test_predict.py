"""predict: a text in, an answer out, however the text comes in and whatever it contains."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stages.build.stage import build
from stages.evaluate import stage as evaluate
from tests.command import run_module
from tests.stages.recipes import evaluation, recipe
from tools.cli.predict import VARIABLE
from tunepress.core.files import write_jsonl
from tunepress.core.paths import ONNX, PREDICTIONS, PREPARED
from tunepress.inference.calibration import answer_probabilities
from tunepress.inference.onnx_model import OnnxModel
from tunepress.text.prompt import Prompt
from tunepress.text.segments import context, learned

ONE = Prompt("### Text: {phrase}\n### The tone is:\n", "{tone}", None, source_max_len=100, max_new_tokens=12)
TWO = Prompt("{Question} ({First Name})\n", "{Best Answer}", None, source_max_len=100, max_new_tokens=12)
TEXTS = ["What a day!", 'It\'s "fine", $HOME and `pwd` \\n {phrase}', "Ça va? 🎉", "two words"]


TOOL = {"type": "function", "function": {"name": "status", "parameters": {"type": "object"}}}
CHATML = Path(__file__).parents[3].joinpath("conf/chat_templates/chatml.jinja").read_text(encoding="utf-8")
CHAT = Prompt(None, None, None, 400, 12, chat_template=CHATML, system="Be brief.", tools=[TOOL])
SIGNATURES = f"""Tools:
{json.dumps(TOOL["function"])}
To use one, write <tool_call>{{"name": ..., "arguments": {{...}}}}</tool_call><|im_end|>
"""


@pytest.fixture(scope="module")
def project(tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with an int4 model of a one-column prompt, one of two in models/two, of conversations in models/chat."""
    folder = tmp_path_factory.mktemp("predict")
    build(recipe(block_size=32, accuracy_level=4, is_symmetric=True), tiny_phi3, folder / ONNX)
    for name, prompt in (("two", TWO), ("chat", CHAT)):
        (folder / "models" / name).mkdir()
        for file in (folder / ONNX).iterdir():
            (folder / "models" / name / file.name).symlink_to(file)
        prompt.save(folder / "models" / name)
    ONE.save(folder / ONNX)
    return folder


def run_predict(project: Path, *arguments: str, stdin: str = "", variable: str | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m tools.cli.predict` in the project's folder."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {} if variable is None else {VARIABLE: variable}
    return run_module("tools.cli.predict", *arguments, folder=project, stdin=stdin, environment=environment)


def answered(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def expected(project: Path, *prompts: str) -> str:
    """What the model says to whole prompts, as predict prints it."""
    model = OnnxModel(project / ONNX)
    return "".join(model.answer(prompt, 12).strip() + "\n" for prompt in prompts)


def of_one(text: str) -> str:
    return f"### Text: {text}\n### The tone is:\n"


def test_texts_come_as_arguments(project: Path, root: Path) -> None:
    assert answered(run_predict(project, *TEXTS)) == expected(project, *map(of_one, TEXTS))


LABELS = ("joy", "fear", "sadness")


@pytest.fixture
def labelled(project: Path, tmp_path: Path) -> Path:
    """The model with labels, a temperature, and a bound that it never reaches."""
    for file in (project / ONNX).iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "prompt.json").unlink()
    replace(ONE, labels=LABELS, temperature=1.5, abstain_below=0.999).save(tmp_path)
    return tmp_path


def test_probabilities_of_labels_are_printed_as_json(project: Path, labelled: Path) -> None:
    options = ("--model", str(labelled), "--probabilities", "--abstain-below", "0")
    lines = answered(run_predict(project, *options, *TEXTS)).splitlines()
    model, rows = OnnxModel(labelled), [json.loads(line) for line in lines]
    assert [row["answer"] for row in rows] == expected(project, *map(of_one, TEXTS)).splitlines()
    for row, text in zip(rows, TEXTS, strict=True):
        prompt = of_one(text)
        completions = [model.encode_completion(label, prompt) for label in LABELS]
        probabilities = answer_probabilities(model, model.encode_prompt(prompt), completions, 1.5)
        assert row["probabilities"] == pytest.approx(dict(zip(LABELS, probabilities, strict=True)), abs=1e-4)


def test_a_text_below_the_bound_of_the_run_has_no_label(project: Path, labelled: Path) -> None:
    assert answered(run_predict(project, "--model", str(labelled), *TEXTS)) == "(abstained)\n" * len(TEXTS)
    options = ("--model", str(labelled), "--abstain-below", "0")
    assert answered(run_predict(project, *options, *TEXTS)) == expected(project, *map(of_one, TEXTS))


def test_a_model_with_a_grammar_answers_within_it(project: Path, labelled: Path) -> None:
    prompt = replace(Prompt.load(labelled), abstain_below=None, guidance='start: ("joy" | "fear" | "sadness")')
    prompt.save(labelled)
    assert set(answered(run_predict(project, "--model", str(labelled), *TEXTS)).splitlines()) <= set(LABELS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--probabilities",), "predict: --probabilities: this model has no probabilities of labels alone; leave it out"),
        (("--abstain-below", "0.5"), "predict: --abstain-below: this model has no probabilities of labels alone; leave it out"),
        (("--abstain-below", "2"), "predict: --abstain-below: must be a probability below 1, got 2.0; 0 never abstains"),
    ],
)
def test_free_text_has_no_probabilities(options: tuple[str, ...], message: str, project: Path) -> None:
    done = run_predict(project, *options, "a")
    assert (done.returncode, done.stdout, done.stderr.splitlines()[-1]) == (1, "", message)


def test_a_text_with_any_character_comes_by_environment(project: Path, root: Path) -> None:
    assert answered(run_predict(project, variable=TEXTS[1])) == expected(project, of_one(TEXTS[1]))


def test_a_text_of_several_lines_by_environment_is_one_text(project: Path, root: Path) -> None:
    assert answered(run_predict(project, variable="two\nlines")) == expected(project, of_one("two\nlines"))


def test_lines_of_standard_input_are_answered_one_by_one_and_empty_ones_are_not(project: Path, root: Path) -> None:
    done = run_predict(project, stdin="\n".join(["", TEXTS[0], "  ", *TEXTS[1:]]))
    assert answered(done) == expected(project, *map(of_one, TEXTS))


def test_an_empty_variable_leaves_standard_input(project: Path, root: Path) -> None:
    assert answered(run_predict(project, stdin="word\n", variable="")) == expected(project, of_one("word"))
    assert answered(run_predict(project, stdin="")) == ""


def test_several_columns_come_as_json_lines_and_a_bad_line_is_told_in_one(project: Path, root: Path) -> None:
    good = json.dumps({"First Name": "Zoë", "Question": "Who's {there}?", "else": 1})
    done = run_predict(project, "--model", "models/two", stdin=f"{good}\nplain text\n{good}\n")
    assert done.returncode == 1
    assert done.stdout == expected(project, "Who's {there}? (Zoë)\n")  # the line before it was answered
    assert done.stderr == 'predict: line 2: this model needs a JSON object {"Question": "...", "First Name": "..."}\n'


@pytest.mark.parametrize("text", ['{"Question": "?"}', "[1, 2]", '"Question"', "5", "null", '{"Question": "?", "First Name": }'])
def test_a_line_without_all_columns_is_refused(text: str, project: Path, root: Path) -> None:
    done = run_predict(project, "--model", "models/two", text)
    assert done.returncode == 1
    assert done.stderr.startswith("predict: line 1: this model needs a JSON object")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["Where's {A1}? 🎉", "[1, 2]", '{"role": "user", "content": "x"}'])
def test_a_text_is_asked_with_the_system_message_and_the_tools_of_training(text: str, project: Path, root: Path) -> None:
    prompt = f"<|im_start|>system\nBe brief.\n\n{SIGNATURES}<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    assert answered(run_predict(project, "--model", "models/chat", text)) == expected(project, prompt)


def test_a_json_list_of_messages_is_a_conversation(project: Path, root: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "status", "arguments": {"order": "A1"}}}]}
    messages = [{"role": "user", "content": "Where's A1?"}, call, {"role": "tool", "content": "late"}]
    prompt = (
        f"<|im_start|>system\n{SIGNATURES}<|im_start|>user\nWhere's A1?<|im_end|>\n<|im_start|>assistant\n"
        '<tool_call>{"name": "status", "arguments": {"order": "A1"}}</tool_call><|im_end|>\n'
        "<|im_start|>tool\nlate<|im_end|>\n<|im_start|>assistant\n"
    )
    done = run_predict(project, "--model", "models/chat", variable=json.dumps(messages, indent=1))
    assert answered(done) == expected(project, prompt)
    done = run_predict(project, "--model", "models/chat", stdin=f"{json.dumps(messages)}\n{json.dumps(messages[:2])}\n")
    assert done.stdout == expected(project, prompt)
    assert (done.returncode, done.stderr) == (1, "predict: line 2: the last must be the user's, or the result of a tool\n")


def test_a_model_of_texts_takes_a_list_of_messages_as_a_text(project: Path, root: Path) -> None:
    text = json.dumps([{"role": "user", "content": "a"}])
    assert answered(run_predict(project, text)) == expected(project, of_one(text))


def test_no_model_is_told_in_one_line(tmp_path: Path, root: Path) -> None:
    done = run_predict(tmp_path, "text")
    assert done.returncode == 1
    assert done.stderr == f"predict: {ONNX}: no genai_config.json, so there is no ONNX model; run `make repro`\n"


def test_a_model_without_its_prompt_is_told_in_one_line(project: Path, root: Path, tmp_path: Path) -> None:
    for file in (project / ONNX).iterdir():
        if file.name != "prompt.json":
            (tmp_path / file.name).symlink_to(file)
    done = run_predict(project, "--model", str(tmp_path), "text")
    assert done.returncode == 1
    assert done.stderr == f"predict: {tmp_path}/prompt.json: not found; models of this pipeline have it, run `make repro`\n"


@pytest.mark.parametrize(
    ("execution_provider", "message", "needs"),
    [
        ("cuda", "Cuda interface not available", "an NVIDIA GPU with driver 580 or newer and, in place of onnxruntime-genai"),
        ("dml", "has not been built with DML support", "Windows with a DirectX 12 GPU"),
        ("webgpu", "not supported in this build", "beside onnxruntime-genai, onnxruntime-ep-webgpu"),
        ("NvTensorRtRtx", "Cuda interface not available", "onnxruntime-ep-nv-tensorrt-rtx"),
    ],
)
def test_a_model_for_other_hardware_says_in_one_line_what_it_takes(
    execution_provider: str, message: str, needs: str, tiny_phi3: Path, tmp_path: Path, root: Path
) -> None:
    precision = "fp16" if execution_provider == "NvTensorRtRtx" else "int4"
    build(recipe(precision, execution_provider), tiny_phi3, tmp_path / ONNX)
    ONE.save(tmp_path / ONNX)
    done = run_predict(tmp_path, "text")
    assert done.returncode == 1
    assert done.stderr.startswith(f"predict: {ONNX}: the model is built for {execution_provider}, which does not run here (")
    assert message in done.stderr
    assert needs in done.stderr
    assert done.stderr.count("\n") == 1


def test_input_that_is_no_utf8_is_told_in_one_line(project: Path, root: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(root), "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-m", "tools.cli.predict"]
    done = subprocess.run(command, cwd=project, env=environment, input=b"\xff\xfe\n", capture_output=True, timeout=120)
    assert b"Traceback" not in done.stderr


def test_answers_are_those_that_evaluate_recorded(project: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"source": f"row {text}", "segments": [context(of_one(text)), learned("x", "x")]} for text in TEXTS]
    monkeypatch.chdir(project)
    write_jsonl(PREPARED / "test.jsonl", rows)
    ONE.save(PREPARED)
    evaluate.main("onnx", evaluate.Config(evaluation()))
    with (PREDICTIONS / "onnx.csv").open(newline="", encoding="utf-8") as file:
        recorded = [row["answer"].strip() for row in csv.DictReader(file)]
    assert answered(run_predict(project, *TEXTS)) == "".join(f"{answer}\n" for answer in recorded)
