"""Several tasks on one model: each is answered with its own adapter, prompt and labels, and they come and go."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import NotFoundError

from benchmarks.serve.letters_model import PROMPT as TEXT
from benchmarks.serve.letters_model import TINY, letters_model
from stages.build.adapters import export, lora
from tests.stages.random_adapter import write_random_adapter
from tests.tools.serve.served import Server, serving, start
from tunepress.core.paths import ADAPTER_FILE
from tunepress.inference.onnx_model import ActiveAdapter, OnnxModel
from tunepress.text.prompt import Prompt

TASKS = {
    "tone": replace(TEXT, labels=("joy", "fear"), temperature=2.0),
    "topic": Prompt("Topic of {text}? ", "{topic}.", ("sport", "art"), source_max_len=100, max_new_tokens=6, abstain_below=0.5),
}


@pytest.fixture(scope="module")
def folders(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model's folder for each task, as build.adapters=separate makes them, and `base` with the first task's adapter."""
    folders = {}
    for seed, (name, prompt) in enumerate(TASKS.items()):
        built = tmp_path_factory.mktemp(name) / "onnx"
        shutil.copytree(folder, built)
        adapter = lora.load(write_random_adapter(folder.parent / "base", built.parent / "adapter", seed))
        export.add_adapter_inputs(adapter, built / "model.onnx", built / ADAPTER_FILE)
        prompt.save(built)
        folders[name] = built
    return folders


@pytest.fixture(scope="module")
def tasks_server(folders: dict[str, Path]) -> Iterator[Server]:
    """A server of the first task's model and both adapters, with two processes."""
    options = [f"--adapter={name}={folder}" for name, folder in folders.items()]
    with serving(folders["tone"], *options, "--processes", "2") as running:
        yield running


def alone(folder: Path, text: str) -> str:
    """What the model of a folder answers."""
    return OnnxModel(folder).answer(text, 12)


def test_each_task_answers_as_its_own_model_does(tasks_server: Server, folders: dict[str, Path]) -> None:
    create = tasks_server.openai().completions.create
    answers = {}
    for _ in range(2):
        for name, folder in folders.items():
            answers[name] = create(model=name, prompt="What a day!", max_tokens=12).choices[0].text
            assert answers[name] == alone(folder, "What a day!")
    assert len(set(answers.values())) == len(TASKS)
    assert create(model="tunepress", prompt="What a day!", max_tokens=12).choices[0].text == answers["tone"]


def test_each_task_has_its_own_prompt_labels_and_temperature(tasks_server: Server, folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        with serving(folder) as server:
            body: dict[str, Any] = {"text": "What a day!", "likelihoods": True}
            expected, response = server.post("/v1/classify", body), tasks_server.post("/v1/classify", body | {"model": name})
            assert response.status_code == 200
            assert response.json() == expected.json() | {"model": name}
            choice = {"type": "choice", "instructions": "?", "choices": [{"value": label} for label in TASKS[name].labels or ()]}
            body = {"input": "What a day!", "questions": [choice]}
            decisions = [server.post("/v1/decisions", body), tasks_server.post("/v1/decisions", body | {"model": name})]
            assert [decision.json()["answers"] for decision in decisions] == [decisions[0].json()["answers"]] * 2


def test_tasks_are_listed_with_the_model_that_they_share(tasks_server: Server) -> None:
    models = tasks_server.get("/v1/models").json()["data"]
    assert [(model["id"], model["parent"]) for model in models] == [
        ("tunepress", None),
        ("tone", "tunepress"),
        ("topic", "tunepress"),
    ]
    with pytest.raises(NotFoundError, match="'joke' not found; the models are 'tunepress', 'tone', 'topic'"):
        tasks_server.openai().completions.create(model="joke", prompt="a")


def test_adapters_come_and_go_while_the_server_runs(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["topic"], tmp_path / "adapters/topic")
    (tmp_path / "adapters/topic/model.onnx.data").unlink()
    with serving(folders["tone"], "--adapters-from", str(tmp_path / "adapters")) as server:
        create = server.openai().completions.create
        loaded = server.post("/v1/load_lora_adapter", {"lora_name": "topic", "lora_path": "topic"})
        assert (loaded.status_code, loaded.json()["id"], loaded.json()["parent"]) == (200, "topic", "tunepress")
        assert create(model="topic", prompt="a", max_tokens=12).choices[0].text == alone(folders["topic"], "a")
        taken = server.post("/v1/load_lora_adapter", {"lora_name": "topic", "lora_path": "topic"})
        assert (taken.status_code, taken.json()["error"]["param"]) == (400, "lora_name")
        assert server.post("/v1/unload_lora_adapter", {"lora_name": "topic"}).status_code == 200
        with pytest.raises(NotFoundError):
            create(model="topic", prompt="a")
        shutil.copyfile(folders["tone"] / ADAPTER_FILE, tmp_path / "adapters/topic" / ADAPTER_FILE)
        assert server.post("/v1/load_lora_adapter", {"lora_name": "topic", "lora_path": "topic"}).status_code == 200
        assert create(model="topic", prompt="a", max_tokens=12).choices[0].text == alone(folders["tone"], "a")
        refused = server.post("/v1/unload_lora_adapter", {"lora_name": "tunepress"}).json()["error"]
        assert "is the model itself" in refused["message"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a" * 300, "File name too long"),
        ("loop", "Symlink loop"),
        ("none", "has no adapter.onnx_adapter; build it with build.adapters=separate"),
        ("../tone", "is outside the folder of --adapters-from"),
        ("/etc", "is outside the folder of --adapters-from"),
        ("broken", "adapter.onnx_adapter: "),
        ("other", "its adapter is for other weights"),
        ("wide", "the adapter does not fit"),
    ],
)
def test_what_cannot_be_loaded_is_refused(path: str, message: str, folders: dict[str, Path], broken_server: Server) -> None:
    refused = broken_server.post("/v1/load_lora_adapter", {"lora_name": "new", "lora_path": path})
    assert refused.status_code == 400, refused.text
    assert message in refused.json()["error"]["message"]
    assert broken_server.post("/v1/completions", {"prompt": "a", "max_tokens": 1}).status_code == 200
    with pytest.raises(NotFoundError):
        broken_server.openai().models.retrieve("new")


@pytest.fixture(scope="module")
def broken_server(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that may load adapters from folders none of which is right."""
    root = tmp_path_factory.mktemp("broken")
    (root / "none").mkdir()
    (root / "loop").symlink_to("loop")
    for name in ("broken", "other"):
        shutil.copytree(folders["topic"], root / name)
    (root / "broken" / ADAPTER_FILE).write_bytes(b"not an adapter")
    with (root / "other/model.onnx.data").open("ab") as file:
        file.write(b"more")
    wide = letters_model(root / "wide_base", TINY | {"hidden_size": 128}, context=512, endless=False)
    adapter = lora.load(write_random_adapter(wide.parent / "base", root / "wide_adapter"))
    export.add_adapter_inputs(adapter, wide / "model.onnx", wide / ADAPTER_FILE)
    wide.rename(root / "wide")
    (root / "wide/model.onnx.data").unlink()
    with serving(folders["tone"], "--adapters-from", str(root)) as running:
        yield running


def test_without_the_option_clients_load_nothing(tasks_server: Server) -> None:
    assert tasks_server.post("/v1/load_lora_adapter", {"lora_name": "a", "lora_path": "b"}).status_code == 404


def test_an_adapter_needs_a_model_that_has_branches(folder: Path, folders: dict[str, Path]) -> None:
    process = start(folder, f"--adapter=topic={folders['topic']}")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "adapter.onnx_adapter: does not fit the model" in errors.splitlines()[-1]
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--adapter=tone"], "--adapter: must be NAME=FOLDER, got 'tone'"),
        (["--adapter=tone=a", "--adapter=tone=b"], "--adapter: the name tone is there twice"),
        (["--adapter=tunepress=a"], "--adapter: tunepress is the name of the model itself"),
        (["--adapters-from=nowhere"], "--adapters-from: nowhere is not a folder"),
    ],
)
def test_a_wrong_option_is_named(options: list[str], message: str, folder: Path) -> None:
    process = start(folder, *options)
    _, errors = process.communicate(timeout=100)
    assert process.returncode in (1, 2)
    assert message in errors


def test_an_adapter_whose_file_is_gone_is_no_mistake_of_the_client(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["topic"], tmp_path / "topic")
    with serving(folders["tone"], "--adapters-from", str(tmp_path), "--processes", "2") as server:
        assert server.post("/v1/load_lora_adapter", {"lora_name": "my/topic", "lora_path": "topic"}).status_code == 200
        assert server.openai().models.retrieve("my/topic").id == "my/topic"
        (tmp_path / "topic" / ADAPTER_FILE).unlink()
        with ThreadPoolExecutor(8) as pool:
            bodies = [{"model": "my/topic", "prompt": "a" * 50, "max_tokens": 30}] * 16
            statuses = {response.status_code for response in pool.map(server.post, ["/v1/completions"] * 16, bodies)}
        assert statuses <= {200, 500}


def test_only_so_many_adapters_stay_in_memory(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ActiveAdapter, "MOST", 2)
    model = OnnxModel(folders["tone"])
    own = model.answer("a", 12)
    for version in range(5):
        model.use_adapter(folders["topic"] / ADAPTER_FILE, version)
        assert model.answer("a", 12) == alone(folders["topic"], "a")
        assert len(model._adapter._loaded) == 2
    model.use_adapter(None)
    assert model.answer("a", 12) == own


def test_an_adapter_that_is_loaded_needs_its_file_no_longer(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["topic"], tmp_path / "topic")
    with serving(folders["tone"], f"--adapter=topic={tmp_path / 'topic'}") as server:
        (tmp_path / "topic" / ADAPTER_FILE).unlink()
        assert server.post("/v1/completions", {"model": "topic", "prompt": "a"}).status_code == 200
