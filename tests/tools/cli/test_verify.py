"""verify: a copy of a model proves that it answers as the original, and what is changed is named."""

import json
import math
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serve.letters_model import TINY, letters_model
from stages.compare import SENTENCES, invented_prompts
from tests.command import run_module
from tools.cli import verify
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl, sha256, write_jsonl
from tunepress.inference import conformance
from tunepress.inference.conformance import FILE_NAME, Answer, Header, Tolerance
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.scoring import token_logprobs
from tunepress.text.prompt import Prompt

LABELS = ("joy", "fear", "sadness")
TOOL = {"type": "function", "function": {"name": "status", "parameters": {"type": "object"}}}
CHATML = Path(__file__).parents[3].joinpath("conf/chat_templates/chatml.jinja").read_text(encoding="utf-8")
PROMPTS = {
    "labels": Prompt("### Text: {text}\nTone: ", "{tone}", LABELS, 100, 12, temperature=1.5),
    "guided labels": Prompt("{text}\n", "{tone}", LABELS, 100, 12, guidance='start: ("joy" | "fear" | "sadness")\n'),
    "labels before a column": Prompt("{text}\n", "{tone} ({why})", LABELS, 100, 12),
    "free text of two columns": Prompt("{Question} ({First Name})\n", "{Answer}", None, 100, 6),
    "conversations": Prompt(None, None, None, 400, 12, chat_template=CHATML, system="Be brief.", tools=[TOOL]),
}


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return letters_model(tmp_path_factory.mktemp("letters"), TINY, context=512, endless=False)


def shipped(letters: Path, prompt: Prompt, folder: Path) -> Path:
    """A model's folder with its conformance.jsonl beside it."""
    shutil.copytree(letters, folder / "onnx")
    prompt.save(folder / "onnx")
    conformance.record(folder / FILE_NAME, OnnxModel(folder / "onnx"), folder / "onnx", invented_prompts(folder / "onnx"))
    return folder / "onnx"


@pytest.fixture(scope="module")
def labelled(letters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shipped(letters, PROMPTS["labels"], tmp_path_factory.mktemp("labelled"))


@pytest.fixture
def model(labelled: Path, tmp_path: Path) -> Path:
    """A copy of the model with labels, to change."""
    shutil.copytree(labelled.parent, tmp_path / "models")
    return tmp_path / "models/onnx"


def run_verify(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_module("tools.cli.verify", *map(str, arguments), folder=Path.cwd())


def refused(*arguments: object) -> str:
    """The line with which the command ends."""
    done = run_verify(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    line = done.stderr.splitlines()[-1]
    assert line.startswith("verify: ")
    return line.removeprefix("verify: ")


def edit(model: Path, number: int, /, **changes: Any) -> Path:
    """Changes a line of the conformance.jsonl beside a model; None removes a key."""
    path = model.parent / FILE_NAME
    lines = read_jsonl(path)
    lines[number - 1] = {name: value for name, value in (lines[number - 1] | changes).items() if value is not None}
    write_jsonl(path, lines)
    return path


# what is recorded


@pytest.mark.parametrize("name", PROMPTS)
def test_a_model_proves_itself_whatever_it_was_trained_on(name: str, letters: Path, tmp_path: Path) -> None:
    prompt = PROMPTS[name]
    folder = shipped(letters, prompt, tmp_path)
    head, *lines = read_jsonl(tmp_path / FILE_NAME)
    assert head["format"] == 1
    assert head["model"] == {file.name: sha256(file) for file in sorted(folder.iterdir())}
    names = LABELS if name in ("labels", "guided labels") else (conformance.NO_LABEL,)
    least, most = (27, 0.1) if names == LABELS else (1, 0.05)
    assert head["tolerance"] == {"probability": most, "answers": 0.9 if names == LABELS else 0.03}
    assert head["max_new_tokens"] == prompt.max_new_tokens
    assert head["packages"].keys() == {"onnxruntime", "onnxruntime-genai"}
    assert len(lines) == len(set(SENTENCES)) == 30
    assert all(sentence in line["prompt"] for sentence, line in zip(SENTENCES, lines, strict=True))
    model = OnnxModel(folder)
    assert [line["answer"] for line in lines] == [
        model.answer(line["prompt"], prompt.max_new_tokens, prompt.guidance) for line in lines
    ]
    assert all(model.decode(line["tokens"]) == line["answer"] for line in lines)
    assert {tuple(line["probabilities"]) for line in lines} == {names}
    if names == LABELS:
        assert [sum(line["probabilities"].values()) for line in lines] == pytest.approx([1] * 30, abs=1e-5)
    done = run_verify(folder)
    assert done.returncode == 0, done.stderr
    expected = f"30 of 30 answers as recorded (at least {least}), largest change of a probability 0.000 (at most {most})\n"
    assert done.stdout == expected


def test_without_labels_the_probability_of_the_recorded_tokens_counts(letters: Path, tmp_path: Path) -> None:
    folder = shipped(letters, PROMPTS["free text of two columns"], tmp_path)
    line, model = read_jsonl(tmp_path / FILE_NAME)[1], OnnxModel(folder)
    ((_, _, logits),) = model.logits([(model.encode_prompt(line["prompt"]), [line["tokens"]])])
    logprobs = token_logprobs(logits, line["tokens"])
    assert line["probabilities"] == {conformance.NO_LABEL: pytest.approx(math.exp(logprobs.mean()), abs=1e-5)}
    for number in range(3, 32):  # one answer that is the same is enough
        edit(folder, number, answer="other", tokens=[*read_jsonl(tmp_path / FILE_NAME)[number - 1]["tokens"], 5])
    done = run_verify(folder)
    assert done.stdout.startswith("1 of 30 answers as recorded (at least 1), largest change of a probability 0.0"), done.stderr
    path = edit(folder, 2, probabilities={conformance.NO_LABEL: line["probabilities"][conformance.NO_LABEL] + 0.06})
    assert f"{path} line 2: answered {json.dumps(line['answer'])}, recorded" in refused(folder)


@pytest.mark.parametrize("tokens", [[10**6], [10**6, 5], [5] * 600])
def test_tokens_that_the_model_cannot_read_are_told(tokens: list[int], letters: Path, tmp_path: Path) -> None:
    folder = shipped(letters, PROMPTS["free text of two columns"], tmp_path)
    path = edit(folder, 2, tokens=tokens)
    line = refused(folder)
    assert line.startswith(f"{path}: the model cannot compute its answers (")
    assert line.endswith("); copy the file again")


def test_the_probabilities_are_those_after_the_temperature(labelled: Path, letters: Path, tmp_path: Path) -> None:
    folder = shipped(letters, replace(PROMPTS["labels"], temperature=None), tmp_path)
    pairs = zip(read_jsonl(folder.parent / FILE_NAME)[1:], read_jsonl(labelled.parent / FILE_NAME)[1:], strict=True)
    for before, after in pairs:
        powers = {label: value ** (1 / 1.5) for label, value in before["probabilities"].items()}
        expected = {label: power / sum(powers.values()) for label, power in powers.items()}
        assert after["probabilities"] == pytest.approx(expected, abs=1e-4)


def test_a_conversation_asks_with_the_system_message_and_the_tools_of_training(letters: Path, tmp_path: Path) -> None:
    folder = shipped(letters, PROMPTS["conversations"], tmp_path)
    line = read_jsonl(folder.parent / FILE_NAME)[1]
    assert line["prompt"].startswith("<|im_start|>system\nBe brief.\n\nTools:\n")
    assert line["prompt"].endswith(f"<|im_start|>user\n{SENTENCES[0]}<|im_end|>\n<|im_start|>assistant\n")


def test_prompts_that_leave_no_room_for_an_answer_are_left_out(letters: Path, tmp_path: Path) -> None:
    path, long = tmp_path / FILE_NAME, "a" * 600
    conformance.record(path, OnnxModel(letters), letters, [long, "short", long])
    assert [line["prompt"] for line in read_jsonl(path)[1:]] == ["short"]
    conformance.record(path, OnnxModel(letters), letters, [long])
    message = f"{path}: has no prompts, because none fits the model's context; there is nothing to verify"
    assert refused(letters, "--against", path) == message


def test_an_answer_has_at_most_32_tokens(letters: Path, tmp_path: Path) -> None:
    folder = shipped(letters, replace(PROMPTS["free text of two columns"], max_new_tokens=200), tmp_path)
    head, *lines = read_jsonl(folder.parent / FILE_NAME)
    assert head["max_new_tokens"] == 32
    assert max(len(line["tokens"]) for line in lines) <= 32


# where it is looked for


def test_the_file_in_the_folder_takes_precedence_and_texts_about_the_model_do_not_count(model: Path) -> None:
    beside = model.parent / FILE_NAME
    beside.rename(model / FILE_NAME)
    beside.write_text("no JSON")
    for name in ("MODEL_CARD.md", "summary.json", "LICENSE", ".gitattributes"):
        (model / name).write_text("text")
    (model / ".cache").mkdir()
    (model / ".cache/state").write_text("text")
    assert run_verify(model).returncode == 0


def test_the_folder_may_be_the_working_folder(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model)
    assert verify.verify(Path()).startswith("30 of 30")
    (model / "sub").mkdir()
    monkeypatch.chdir(model / "sub")
    assert verify.recorded_path(Path("..")).read_bytes() == (model.parent / FILE_NAME).read_bytes()


def test_the_file_may_be_named(model: Path, tmp_path: Path) -> None:
    path = (model.parent / FILE_NAME).rename(tmp_path / "other.jsonl")
    message = f"{model.parent / FILE_NAME}: not found; copy it from beside the model's folder where the model was built"
    assert refused(model) == message
    assert run_verify(model, "--against", path).returncode == 0
    assert refused(model, "--against", tmp_path) == f"{tmp_path}: {message.partition(': ')[2]}"


def test_no_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused() == "models/onnx: not found; name the folder of an ONNX model, or run `make repro`"


# another model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda file: file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1])),
            "another sha256 than that of the model that {path} describes; copy the model and the file again",
        ),
        (Path.unlink, "not found, so this is not the model that {path} describes; copy the model again"),
    ],
)
@pytest.mark.parametrize("name", ["model.onnx.data", "genai_config.json", "prompt.json"])
def test_a_changed_or_missing_file_is_named(change: Callable[[Path], object], message: str, name: str, model: Path) -> None:
    change(model / name)
    assert refused(model) == f"{model / name}: {message.format(path=model.parent / FILE_NAME)}"


def test_an_additional_file_is_named(model: Path) -> None:
    (model / "adapter.onnx_adapter").write_bytes(b"")
    message = f"not a file of the model that {model.parent / FILE_NAME} describes; move it elsewhere"
    assert refused(model) == f"{model / 'adapter.onnx_adapter'}: {message}"


# other answers


def test_a_few_other_answers_are_within_the_tolerance_and_more_are_not(model: Path) -> None:
    for number in (5, 8, 9):
        edit(model, number, tokens=[1, 2], answer="fear")
    assert run_verify(model).stdout.startswith("27 of 30 answers as recorded (at least 27), ")
    path = edit(model, 12, tokens=[1], answer='jo"y')
    actual = conformance.answer_prompts(OnnxModel(model), model, [read_jsonl(path)[4]["prompt"]], 12)[0]
    line = refused(model)
    assert line.startswith("26 of 30 answers as recorded (at least 27), largest change of a probability 0.000 (at most 0.1); ")
    assert f'; {path} line 5: answered {json.dumps(actual.answer)}, recorded "fear"; the probability of ' in line


def test_a_probability_beyond_the_tolerance_is_told(model: Path) -> None:
    line = read_jsonl(model.parent / FILE_NAME)[6]
    label, value = max(line["probabilities"].items(), key=lambda item: item[1])
    path = edit(model, 7, probabilities=line["probabilities"] | {label: value - 0.09})
    assert (
        run_verify(model).stdout
        == "30 of 30 answers as recorded (at least 27), largest change of a probability 0.090 (at most 0.1)\n"
    )
    edit(model, 7, probabilities=line["probabilities"] | {label: value - 0.11})
    answer = json.dumps(line["answer"])
    assert refused(model) == (
        "30 of 30 answers as recorded (at least 27), largest change of a probability 0.110 (at most 0.1); "
        f"{path} line 7: answered {answer}, recorded {answer}; the probability of {label!r} is {value:.3f}, "
        f"recorded {value - 0.11:.3f}"
    )


def test_the_tolerance_is_that_of_the_file_and_other_packages_are_named(model: Path) -> None:
    edit(model, 5, tokens=[1, 2])
    edit(model, 1, tolerance={"probability": 0, "answers": 1}, packages={"onnxruntime": "1.0"})
    line = refused(model)
    assert line.startswith("29 of 30 answers as recorded (at least 30), largest change of a probability 0.000 (at most 0); ")
    here = ", ".join(f"{name} {version}" for name, version in conformance.packages().items())
    assert line.endswith(f"; recorded with onnxruntime 1.0, compared with {here}")


def test_other_tokens_of_the_same_text_are_shown_as_tokens() -> None:
    before, after = (Answer("p", tokens, "joy", {"joy": 0.5}) for tokens in ([1], [1, 2]))
    assert verify.difference(before, after).startswith("answered [1, 2], recorded [1]; ")


def test_a_probability_that_is_not_a_number_is_beyond_any_tolerance() -> None:
    before, after = (Answer("p", [1], "joy", {"joy": value, "fear": 0.5}) for value in (0.5, math.nan))
    header = Header({"model.onnx": ""}, Tolerance(1.0, 0.0), 8, conformance.packages())
    with pytest.raises(
        InputError, match=r"largest change of a probability inf .*the probability of 'joy' is nan, recorded 0.500$"
    ):
        verify.compare(header, [before], [after], Path(FILE_NAME))


def test_other_labels_than_those_of_the_model_are_told(model: Path) -> None:
    path = edit(model, 9, probabilities={"joy": 0.5, "anger": 0.5})
    assert refused(model) == f"{path} line 9: its labels are not those of the model; copy the file again"
    edit(model, 3, probabilities={"token": 0.5})
    assert refused(model) == f"{path} line 3: its labels are not those of the model; copy the file again"


# a file that is not valid

CURE = "; copy the file again from where the model was built, or use the version of Tunepress that wrote it"


@pytest.mark.parametrize(
    ("number", "changes", "message"),
    [
        (1, {"format": 2}, "format must be 1"),
        (1, {"format": True}, "format must be 1"),
        (1, {"model": ["model.onnx"]}, "model must be an object of files and their sha256"),
        (1, {"model": {"model.onnx": 1}}, "model must be an object of files and their sha256"),
        (1, {"model": {}}, "model must be an object of files and their sha256"),
        (1, {"tolerance": 0.1}, "tolerance must be an object of probability and answers, from 0 to 1"),
        (1, {"tolerance": {"probability": 0.1}}, "tolerance must be an object of probability and answers, from 0 to 1"),
        (1, {"tolerance": {"probability": math.nan, "answers": 1}}, "tolerance must be an object of probability and answers, "),
        (1, {"tolerance": {"probability": 2, "answers": 1}}, "tolerance must be an object of probability and answers, "),
        (1, {"max_new_tokens": "12"}, "max_new_tokens must be an integer above 0"),
        (1, {"max_new_tokens": 0}, "max_new_tokens must be an integer above 0"),
        (1, {"packages": None}, "packages must be an object of packages and their versions"),
        (2, {"prompt": 5}, "prompt must be a text"),
        (3, {"prompt": None}, "prompt must be a text"),
        (4, {"tokens": "1 2"}, "tokens must be a list of integers"),
        (4, {"tokens": [1.0]}, "tokens must be a list of integers"),
        (4, {"tokens": [True]}, "tokens must be a list of integers"),
        (5, {"answer": ["joy"]}, "answer must be a text"),
        (4, {"tokens": []}, "tokens must be a list of integers"),
        (4, {"tokens": [2**31]}, "tokens must be a list of integers"),
        (4, {"tokens": [-1]}, "tokens must be a list of integers"),
        (6, {"probabilities": None}, "probabilities must be an object of labels and their probabilities"),
        (6, {"probabilities": [0.5]}, "probabilities must be an object of labels and their probabilities"),
        (6, {"probabilities": {"joy": "0.5"}}, "probabilities must be an object of labels and their probabilities"),
        (6, {"probabilities": {"joy": math.nan}}, "probabilities must be an object of labels and their probabilities"),
    ],
)
def test_a_value_that_cannot_be_compared_is_named(number: int, changes: dict[str, Any], message: str, model: Path) -> None:
    path = edit(model, number, **changes)
    line = refused(model)
    assert line.startswith(f"{path} line {number}: {message}")
    assert line.endswith(CURE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", " line 1: not JSON (Expecting value: line 1 column 1 (char 0)); copy"),
        (b"{\n", " line 1: not JSON (Expecting property name"),
        (b"[" * 100_000, " line 1: not JSON (maximum recursion depth exceeded"),
        (b"[1]\n", " line 1: format must be 1; copy"),
        (b"\xff\n", ": not UTF-8; copy"),
    ],
)
def test_what_is_not_json_is_told(content: bytes, message: str, model: Path) -> None:
    path = model.parent / FILE_NAME
    path.write_bytes(content)
    assert refused(model).startswith(f"{path}{message}")


def test_a_line_that_was_cut_off_is_named(model: Path) -> None:
    path = model.parent / FILE_NAME
    path.write_bytes(path.read_bytes()[:-20])
    assert refused(model).startswith(f"{path} line 31: not JSON (")
