"""make base-model: writes the commit and licence of a model of the Hub, and refuses one that no stage can handle."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub import COMMIT, Hub, client_environment
from tests.loopback import running
from tools.cli import base_model
from tools.cli.base_model import Repository, write
from tunepress.core.errors import InputError

LLAMA = {"architectures": ["LlamaForCausalLM"]}


def repository(repo_id: str = "org/Tiny-0.5B", **changed: Any) -> Repository:
    values: dict[str, Any] = {"revision": COMMIT, "license": "mit", "config": LLAMA, "weight_bytes": 1, "chat_template": True}
    return Repository(repo_id, **(values | changed))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    base_model.FOLDER.mkdir(parents=True)
    return tmp_path / base_model.FOLDER


def test_a_new_model_gets_a_file_named_after_it(folder: Path) -> None:
    assert write(repository(), None) == base_model.FOLDER / "tiny_0_5b.yaml"
    assert (folder / "tiny_0_5b.yaml").read_text() == (
        "# Tiny-0.5B from the Hugging Face Hub at one commit.\n"
        f"name: Tiny-0.5B\nlicense: mit\nsource: huggingface\nrepo_id: org/Tiny-0.5B\nrevision: {COMMIT}\n"
    )


def test_of_a_known_model_only_commit_and_licence_change(folder: Path) -> None:
    text = "# mine\nname: X # shown\nlicense: other\nsource: huggingface\nrepo_id: org/Tiny-0.5B\nrevision: null\n"
    (folder / "mine.yaml").write_text(text)
    assert write(repository(), None).stem == "mine"
    expected = text.replace("license: other", "license: mit").replace("revision: null", f"revision: {COMMIT}")
    assert (folder / "mine.yaml").read_text() == expected


def test_a_file_of_another_model_is_kept(folder: Path) -> None:
    (folder / "tiny_0_5b.yaml").write_text("repo_id: org/other\n")
    with pytest.raises(InputError, match=r"tiny_0_5b\.yaml: is another model; set NAME="):
        write(repository(), None)
    assert write(repository(), "second").stem == "second"
    with pytest.raises(InputError, match=r"--name \.\./x: must consist of letters, digits and underscores"):
        write(repository("org/y"), "../x")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight_bytes": 0}, "org/Tiny-0.5B: has no safetensors files; "),
        ({"config": {"architectures": ["BertModel"]}}, "org/Tiny-0.5B: BertModel is not supported; "),
        (
            {"config": LLAMA | {"quantization_config": {"quant_method": "awq"}}},
            "org/Tiny-0.5B: the weights are already quantized",
        ),
    ],
)
def test_a_model_that_no_stage_can_handle_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        repository(**changed).check()
    assert str(refused.value).startswith(message)


@pytest.fixture
def hub(tiny_phi3: Path) -> Iterator[Hub]:
    with running(Hub(tiny_phi3)) as server:
        yield server


def run(root: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = client_environment(endpoint, Path.cwd(), root)
    code = "import runpy, time; time.sleep = lambda seconds: None; runpy.run_module('tools.cli.base_model', run_name='__main__')"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_hub_is_asked_for_commit_licence_size_and_template(hub: Hub, root: Path, folder: Path) -> None:
    done = run(root, hub.url, "org/tiny")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"org/tiny: Phi3ForCausalLM, 0.0 GB of weights, with a chat template, licence apache-2.0, commit {COMMIT}",
        "conf/base_model/tiny.yaml: written; use it with `dvc exp run -S base_model=tiny`",
    ]
    assert (
        f"license: apache-2.0\nsource: huggingface\nrepo_id: org/tiny\nrevision: {COMMIT}\n" in (folder / "tiny.yaml").read_text()
    )
    assert not set(hub.sent) - {"config.json", "tokenizer_config.json"}


@pytest.mark.slow
def test_what_the_hub_has_not_is_told_in_one_line_and_nothing_is_written(hub: Hub, root: Path, folder: Path) -> None:
    hub.files["config.json"] = json.dumps({"architectures": ["BertModel"]}).encode()
    for endpoint, repo_id, message in (
        (hub.url, "org/tiny", "base-model: org/tiny: BertModel is not supported; "),
        (hub.url, "org/none", "base-model: org/none: "),
        (hub.url, "a/b/c", "base-model: a/b/c: the Hub has no such model or revision main; check the spelling"),
        ("http://127.0.0.1:9", "org/tiny", "base-model: org/tiny: could not be read from the Hub ("),
    ):
        done = run(root, endpoint, repo_id)
        assert done.returncode == 1
        assert done.stderr.startswith(message), done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert list(folder.iterdir()) == []
