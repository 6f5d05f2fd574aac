"""make package FOR=foundry-local: Foundry Local finds the folder, and what it asks is the trained prompt."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime_genai as og
import pytest
from tokenizers import Tokenizer, models, processors

from benchmarks.serve.letters_model import PROMPT
from tests.command import run_module
from tests.tools.serve.prompts import CHAT, COLUMNS, with_prompt
from tools.package import foundry_local
from tools.package.foundry_local import write_package
from tunepress.core.errors import InputError
from tunepress.core.files import read_json, read_jsonl, sha256
from tunepress.core.paths import ADAPTER_FILE
from tunepress.inference.onnx_model import OnnxModel
from tunepress.text.prompt import Prompt

SDK = "foundry-local-sdk==2.2.1"
SYSTEM = "Answer as 'one' {word}."
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"strict": True}}}]
MARKUP = (
    "{% if tools %}{{ tools[0]['function']['name'] }}\n{% endif %}"
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
CONVERSATIONS = Prompt(None, None, None, 100, 12, chat_template=MARKUP)
QUESTION = [{"role": "user", "content": "hello"}]


def scanned(cache: Path) -> dict[str, Path]:
    """The models that local_model_scanner.cc of Foundry Local finds in a cache."""
    results: dict[str, Path] = {}

    def scan(folder: Path) -> None:
        if (folder / "genai_config.json").exists() and (folder / "inference_model.json").exists():
            name = read_json(folder / "inference_model.json").get("Name")
            if isinstance(name, str) and not (folder / "download.tmp").exists():
                results[name if ":" in name else f"{name}:0"] = folder
            return
        for path in folder.iterdir():
            if path.is_dir():
                scan(path)

    for path in cache.iterdir():
        if path.is_dir():
            scan(path)
    return results


def packaged(model: Path, folder: Path, prompt: Prompt) -> Path:
    """The package of a model with another prompt."""
    write_package(with_prompt(model, prompt, folder / "onnx"), folder / "package", "tone")
    return folder / "package"


def asked(package: Path, messages: list[dict[str, Any]] = QUESTION) -> str:
    """What the SDK asks a model: the chat template of its folder, as onnxruntime-genai renders it."""
    tokenizer = og.Tokenizer(og.Model(str(package)))
    return str(tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True))


def prompt_template(package: Path) -> str:
    """What the service of the command line asks."""
    content = read_json(package / "inference_model.json")
    assert content["PromptTemplate"]["assistant"] == "{Content}"
    return str(content["PromptTemplate"]["prompt"])


def test_a_package_is_a_model_that_foundry_local_finds(model: Path, tmp_path: Path) -> None:
    for name in ("tone", "tone:2"):
        write_package(model, tmp_path / "cache/tone", name)
        assert scanned(tmp_path / "cache") == {"tone:0" if name == "tone" else name: tmp_path / "cache/tone"}
    package = tmp_path / "cache/tone"
    names = {path.name for path in model.iterdir()} | {"inference_model.json"}
    assert {path.name for path in package.iterdir()} == names
    assert (package / "model.onnx.data").stat().st_ino == (model / "model.onnx.data").stat().st_ino
    changed = {name for name in names if not (model / name).exists() or sha256(model / name) != sha256(package / name)}
    assert changed == {"inference_model.json", "chat_template.jinja"}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["tone"]


def test_a_model_of_texts_is_asked_with_the_trained_prompt(model: Path, tmp_path: Path) -> None:
    write_package(model, tmp_path / "tone", "tone")
    expected = PROMPT.render_prompt({"phrase": "hello"})
    assert prompt_template(tmp_path / "tone").replace("{Content}", "hello") == expected
    history = [{"role": "system", "content": "x"}, *QUESTION, {"role": "assistant", "content": "y"}]
    for messages in (QUESTION, [{"role": "user", "content": " hello\n"}], [*history, *QUESTION]):
        assert asked(tmp_path / "tone", messages) == expected
    assert OnnxModel(tmp_path / "tone").answer(expected, 12) == OnnxModel(model).answer(expected, 12)


def test_quotes_braces_and_line_ends_of_a_prompt_are_kept(model: Path, tmp_path: Path) -> None:
    prompt = replace(PROMPT, prompt='It\'s "{{a}}" \\n %}} }}}} {{%#\r\n\t[[[[ü {text}]]]] {text}\n\n')
    package = packaged(model, tmp_path, prompt)
    expected = prompt.render_prompt({"text": "hello"})
    assert asked(package) == expected
    assert prompt_template(package).replace("{Content}", "hello") == expected


def test_a_model_trained_in_its_chat_template_keeps_it(model: Path, tmp_path: Path) -> None:
    package = packaged(model, tmp_path, CHAT)
    assert asked(package) == CHAT.render_prompt({"question": "hello"})
    assert (package / "chat_template.jinja").read_bytes() == (model / "chat_template.jinja").read_bytes()


def test_words_around_the_text_in_a_chat_template_are_not_lost(model: Path, tmp_path: Path) -> None:
    prompt = replace(CHAT, prompt="<|user|>\nWhat is the tone of {question}?<|end|>\n<|assistant|>\n")
    assert asked(packaged(model, tmp_path, prompt)) == prompt.render_prompt({"question": "hello"})


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "<|user|>\nhello<|end|>\n<|assistant|>\n"),
        ({"system": SYSTEM}, f"<|system|>\n{SYSTEM}<|end|>\n<|user|>\nhello<|end|>\n<|assistant|>\n"),
        ({"tools": TOOLS}, "look\n<|user|>\nhello<|end|>\n<|assistant|>\n"),
        ({"bos_token": "<|b|>"}, "<|b|><|user|>\nhello<|end|>\n<|assistant|>\n"),
        ({"bos_token": "<|user|>"}, "<|user|>\nhello<|end|>\n<|assistant|>\n"),
        (
            {"chat_template_kwargs": {"mark": "x"}, "chat_template": "{{ mark }}" + MARKUP},
            "x<|user|>\nhello<|end|>\n<|assistant|>\n",
        ),
    ],
)
def test_conversations_are_asked_with_what_all_had_in_training(
    changed: dict[str, Any], expected: str, model: Path, tmp_path: Path
) -> None:
    package = packaged(model, tmp_path, replace(CONVERSATIONS, **changed))
    assert asked(package) == expected
    assert prompt_template(package).replace("{Content}", "hello") == expected


def test_a_system_message_of_the_user_replaces_that_of_training(model: Path, tmp_path: Path) -> None:
    package = packaged(model, tmp_path, replace(CONVERSATIONS, system=SYSTEM))
    assert asked(package, [{"role": "system", "content": "x"}, *QUESTION]).startswith("<|system|>\nx<|end|>\n<|user|>")


def test_the_first_token_is_in_the_text_if_the_tokenizer_added_it(model: Path, tmp_path: Path) -> None:
    folder = with_prompt(model, PROMPT, tmp_path / "onnx")
    tokenizer = Tokenizer(models.WordLevel({"<s>": 0}, unk_token="<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    settings = read_json(model / "tokenizer_config.json") | {"bos_token": "<s>", "chat_template": "of another program"}
    for name, text in (("tokenizer.json", tokenizer.to_str()), ("tokenizer_config.json", json.dumps(settings))):
        (folder / name).unlink()
        (folder / name).write_text(text, encoding="utf-8")
    write_package(folder, tmp_path / "package", "tone")
    assert prompt_template(tmp_path / "package") == "<s>### Text: {Content}\n### The tone is:\n"
    assert (tmp_path / "package/chat_template.jinja").read_text().startswith("{{- '<s>' }}{{- '### Text: ' }}")
    assert "chat_template" not in read_json(tmp_path / "package/tokenizer_config.json")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json: not found, so it is not known whether prompts begin with <s>"):
        write_package(folder, tmp_path / "package", "tone")


@pytest.mark.parametrize("inside", [False, True])
def test_conformance_is_that_of_the_package(inside: bool, model: Path, tmp_path: Path) -> None:
    folder = with_prompt(model, PROMPT, tmp_path / "onnx")
    before = {path.name: sha256(path) for path in folder.iterdir()}
    lines = [{"format": 1, "model": before, "packages": {}}, {"prompt": "ü", "probabilities": {"a": 0.125}}]
    recorded = (folder if inside else tmp_path) / "conformance.jsonl"
    recorded.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    write_package(folder, tmp_path / "package", "tone")
    header, answer = read_jsonl(tmp_path / "package/conformance.jsonl")
    files = {path.name: sha256(path) for path in (tmp_path / "package").iterdir() if path.name != "conformance.jsonl"}
    assert header == {"format": 1, "model": files, "packages": {}}
    assert answer == lines[1]


def test_what_foundry_local_cannot_ask_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"prompt\.json: the prompt has the columns Question, First Name, and Foundry Local has one"
    ):
        packaged(model, tmp_path / "columns", COLUMNS)
    folder = with_prompt(model, PROMPT, tmp_path / "onnx")
    (folder / ADAPTER_FILE).touch()
    with pytest.raises(InputError, match=r"Foundry Local loads no adapters; build the model with build\.adapters=merged"):
        write_package(folder, tmp_path / "package", "tone")
    for name in ("", "../tone", "to ne", "tone:x", "-x"):
        with pytest.raises(InputError, match=f"^--name {name}: must be letters, digits"):
            write_package(model, tmp_path / "package", name)
    assert not (tmp_path / "package").exists()


def test_only_an_earlier_package_is_replaced(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write_package(model, tmp_path / "mine", "tone")
    write_package(model, tmp_path / "mine", "tone")
    (tmp_path / "mine/inference_model.json").unlink()
    (tmp_path / "file").touch()
    for name in ("mine", "file"):
        with pytest.raises(InputError, match=r"exists and is not a package for Foundry Local; remove it"):
            write_package(model, tmp_path / name, "tone")
    folder = with_prompt(model, PROMPT, tmp_path / "onnx")
    for output in (folder, folder / "package", tmp_path / "x/../onnx/package"):
        with pytest.raises(InputError, match=r"must not be in the model's folder$"):
            write_package(folder, output, "tone")


def test_a_failure_leaves_the_earlier_package(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(model, tmp_path / "tone", "tone")

    def fails(*arguments: Any) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(foundry_local, "write_chat_template", fails)
    with pytest.raises(OSError, match="No space left"):
        write_package(model, tmp_path / "tone", "other")
    assert scanned(tmp_path) == {"tone:0": tmp_path / "tone"}
    assert [path.name for path in tmp_path.iterdir()] == ["tone"]


def test_the_command_says_what_it_wrote_or_what_is_wrong(model: Path, tmp_path: Path) -> None:
    done = run_module("tools.package", "foundry-local", f"--model={model}", "--name=tone:1", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "package: models/foundry-local/tone: tone:1 for Foundry Local, 0 MB\n"
    done = run_module("tools.package", "foundry-local", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "package: models/onnx: no genai_config.json, so there is no ONNX model; run `make repro`\n"


@pytest.mark.slow
def test_the_sdk_lists_and_loads_it_and_asks_the_trained_prompt(model: Path, tmp_path: Path) -> None:
    """The SDK needs another onnxruntime than this environment has."""
    python = tmp_path / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", SDK]
    installed = subprocess.run(install, capture_output=True, text=True)
    if installed.returncode and not os.environ.get("CI"):
        pytest.skip(f"no package index: {installed.stderr.strip().splitlines()[-1]}")
    assert installed.returncode == 0, installed.stderr
    write_package(model, tmp_path / "cache/tone", "tone:1")
    shutil.copy(Path(__file__).with_name("ask_foundry_local.py"), tmp_path)
    environment = os.environ | {"CI": "true", "ORT_TELEMETRY_DISABLED": "1"}  # the SDK sends telemetry, but not in CI
    command = [str(python), "ask_foundry_local.py", "cache/tone", "tone:1", "hello"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = PROMPT.render_prompt({"phrase": "hello"})
    onnx = OnnxModel(model)
    answer = {"models": ["tone:1"], "prompt_tokens": len(onnx.encode_prompt(expected)), "answer": onnx.answer(expected, 12)}
    assert json.loads(done.stdout.splitlines()[-1]) == answer
