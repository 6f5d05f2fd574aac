"""merge: the merged model is the model that was trained, in little memory, and a fault leaves what was there before."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.merge import stage as merge
from tests.conftest import ROOT
from tests.stages.merging import LLAMA, ONE_FILE, SEVERAL, logits, merge_in, merged_by_peft, new_adapter, new_base
from tests.stages.outputs import ENVIRONMENT, hashes, started
from tunepress.config.merge import Merge, MergeBase
from tunepress.core.errors import InputError
from tunepress.core.files import size_mb
from tunepress.core.paths import ADAPTER, BASE, MERGED
from tunepress.models.hf_model import load_model
from tunepress.models.random_model import write_random_model
from tunepress.models.shards import INDEX, SINGLE_FILE, Shards
from tunepress.text.prompt import Prompt

CLOSE = 1e-5
LAYERS = ["q_proj", "o_proj", "down_proj"]
UNTYING: dict[str, dict[str, Any]] = {
    "the embedding": {"target_modules": [*LAYERS, "embed_tokens"]},
    "the head": {"target_modules": [*LAYERS, "lm_head"]},
    "each in its own way": {"target_modules": ["embed_tokens", "lm_head"]},
    "the embedding with dora": {"target_modules": ["embed_tokens"], "use_dora": True},
    "the head with dora": {"target_modules": ["lm_head"], "use_dora": True},
    "the embedding whole": {"target_modules": LAYERS, "modules_to_save": ["embed_tokens"]},
    "the head whole": {"target_modules": LAYERS, "modules_to_save": ["lm_head"]},
    "the head whole and the embedding": {"target_modules": ["embed_tokens"], "modules_to_save": ["lm_head"]},
}
TYING: dict[str, dict[str, Any]] = {
    "neither": {"target_modules": LAYERS},
    "both as one": {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    "the embedding as one": {"target_modules": [*LAYERS, "embed_tokens"], "ensure_weight_tying": True},
    "both whole as one": {"target_modules": LAYERS, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_base(tmp_path_factory.mktemp("merge") / "llama", "llama")


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tied")
    return {size: new_base(folder / size, "tied", max_shard_size=size) for size in (ONE_FILE, SEVERAL)}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 166 MB in one file, and an adapter beside it."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "base").mkdir()
    shape = {"hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 3, "num_attention_heads": 8}
    write_random_model({**LLAMA, **shape}, 0, folder / "base")
    new_adapter(folder / "adapter", folder / "base", target_modules="all-linear")
    return folder


def project_of(folder: Path, base: Path, adapter: Path) -> Path:
    """A project in which `python -m stages.merge` can run."""
    (folder / BASE).parent.mkdir(parents=True)
    (folder / BASE).symlink_to(base)
    (folder / ADAPTER).symlink_to(adapter)
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    return folder


def bind_to_two_cores() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max())


# the same model


def test_the_merged_folder_is_the_base_models_with_other_weights(llama: Path, tmp_path: Path) -> None:
    trained = new_adapter(tmp_path / "adapter", llama, target_modules=LAYERS)
    folder = merge_in(tmp_path, llama, tmp_path / "adapter")
    assert {file.name for file in folder.iterdir()} == {file.name for file in llama.iterdir()} | {"prompt.json"}
    for name in ("config.json", "generation_config.json", "tokenizer.json", INDEX):
        assert (folder / name).read_bytes() == (llama / name).read_bytes(), name
    assert difference(logits(load_model(folder)), logits(trained)) < CLOSE
    assert difference(logits(load_model(folder)), logits(load_model(llama))) > 0.1
    written = json.loads((tmp_path / "metrics/merge.json").read_text())
    assert written == {"merged_modules": 6, "size_mb": size_mb(folder)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_second_merge_and_one_on_other_cores_give_the_same_bytes(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunepress.models.shards.BLOCK", 500)
    base = new_base(tmp_path / "base", "llama", dtype)
    new_adapter(tmp_path / "adapter", base, target_modules=LAYERS, use_dora=True)
    first = hashes(merge_in(tmp_path, base, tmp_path / "adapter"))
    threads = torch.get_num_threads()
    for cores in (1, 5):
        monkeypatch.setattr("tunepress.models.shards.available_cores", lambda cores=cores: cores)
        assert hashes(merge_in(tmp_path, base, tmp_path / "adapter")) == first
    assert torch.get_num_threads() == threads


def test_a_bfloat16_model_stays_one(tmp_path: Path) -> None:
    base = new_base(tmp_path / "base", "phi3", torch.bfloat16)
    new_adapter(tmp_path / "adapter", base, target_modules=["qkv_proj"])
    folder = merge_in(tmp_path, base, tmp_path / "adapter")
    assert {stored.kind for stored in Shards.of(folder).tensors.values()} == {"BF16"}
    assert (folder / "config.json").read_bytes() == (base / "config.json").read_bytes()


def test_a_base_without_generation_config_gets_one(llama: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(llama, base)
    (base / "generation_config.json").unlink()
    new_adapter(tmp_path / "adapter", base, target_modules=LAYERS)
    assert (merge_in(tmp_path, base, tmp_path / "adapter") / "generation_config.json").exists()


# tied weights


@pytest.mark.parametrize("size", [ONE_FILE, SEVERAL])
@pytest.mark.parametrize("name", UNTYING)
def test_tied_weights_of_which_one_is_adapted_become_two_as_in_training(
    name: str, size: str, tied: dict[str, Path], tmp_path: Path
) -> None:
    trained = new_adapter(tmp_path / "adapter", tied[size], **UNTYING[name])
    folder = merge_in(tmp_path, tied[size], tmp_path / "adapter")
    merged = load_model(folder)
    assert difference(logits(merged), logits(trained)) < CLOSE
    assert merged.config.tie_word_embeddings is False
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
    assert not torch.equal(merged.lm_head.weight, merged.model.embed_tokens.weight)
    files = [file.name for file in sorted(folder.glob("*.safetensors"))]
    before = len(list(tied[size].glob("*.safetensors")))
    assert len(files) == before + 1
    assert list(load_file(folder / files[-1])) == ["lm_head.weight"]


@pytest.mark.parametrize("name", TYING)
def test_tied_weights_that_are_adapted_as_one_stay_one(name: str, tied: dict[str, Path], tmp_path: Path) -> None:
    trained = new_adapter(tmp_path / "adapter", tied[SEVERAL], **TYING[name])
    folder = merge_in(tmp_path, tied[SEVERAL], tmp_path / "adapter")
    merged = load_model(folder)
    assert difference(logits(merged), logits(trained)) < CLOSE
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    assert "lm_head.weight" not in Shards.of(folder).tensors
    assert (folder / "config.json").read_bytes() == (tied[SEVERAL] / "config.json").read_bytes()


def test_peft_gives_the_head_the_product_of_the_embedding_too(tied: dict[str, Path], tmp_path: Path) -> None:
    """Why it is not followed here; should this fail, it may have become right."""
    trained = new_adapter(tmp_path / "adapter", tied[SEVERAL], **UNTYING["the embedding"])
    assert difference(logits(merged_by_peft(tied[SEVERAL], tmp_path / "adapter")), logits(trained)) > 0.01


@pytest.mark.parametrize("stored_as", ["lm_head.weight", "both"])
@pytest.mark.parametrize("name", ["the embedding", "the head", "both as one"])
def test_the_tied_weight_may_be_stored_under_the_heads_name_or_both(
    name: str, stored_as: str, tied: dict[str, Path], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tied[ONE_FILE], base)
    weights = load_file(base / SINGLE_FILE)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    if stored_as != "both":
        del weights["model.embed_tokens.weight"]
    save_file(weights, base / SINGLE_FILE, {"format": "pt"})
    trained = new_adapter(tmp_path / "adapter", base, **(UNTYING | TYING)[name])
    merged = load_model(merge_in(tmp_path, base, tmp_path / "adapter"))
    assert difference(logits(merged), logits(trained)) < CLOSE
    assert merged.config.tie_word_embeddings is (name == "both as one")


# memory


@pytest.mark.slow
def test_the_memory_does_not_grow_with_the_model(large: Path, llama: Path, tmp_path: Path) -> None:
    new_adapter(tmp_path / "adapter", llama, target_modules="all-linear")
    peaks = []
    for name, base, adapter in (("small", llama, tmp_path / "adapter"), ("large", large / "base", large / "adapter")):
        project = project_of(tmp_path / name, base, adapter)
        # a shell in between: a process's peak begins with the size of the one that it was forked from, which is large here
        command = ["sh", "-c", f"{sys.executable} -m stages.merge; exit $?"]
        subprocess.run(command, cwd=project, env=ENVIRONMENT, preexec_fn=bind_to_two_cores, check=True)
        peaks.append(json.loads((project / "metrics/timings/merge.json").read_text())["peak_memory_mb"])
    assert size_mb(large / "base") > 160
    assert peaks[1] - peaks[0] < 100  # the largest product, 15 MB, and some parts for each thread


# faults


@pytest.mark.slow
def test_a_killed_merge_leaves_the_earlier_model_and_the_next_run_is_whole(large: Path, tmp_path: Path) -> None:
    project = project_of(tmp_path / "project", large / "base", large / "adapter")
    (project / MERGED).mkdir()
    (project / MERGED / "earlier").write_text("model")
    partial = (project / MERGED).with_name(".merged.partial")
    killed = started("merge", project)
    while killed.poll() is None and not ((partial / SINGLE_FILE).exists() and (partial / SINGLE_FILE).stat().st_size > 1e6):
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert [file.name for file in (project / MERGED).iterdir()] == ["earlier"]
    assert (partial / SINGLE_FILE).exists()
    again = merge_in(project, large / "base", large / "adapter")
    assert not partial.exists()
    assert hashes(again) == hashes(merge_in(tmp_path / "second", large / "base", large / "adapter"))


@pytest.mark.slow
def test_a_disk_that_takes_no_more_ends_in_one_line_and_leaves_nothing(large: Path, tmp_path: Path) -> None:
    project = project_of(tmp_path / "project", large / "base", large / "adapter")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000, 50_000_000))"
    full = started(
        "merge", project, before=limit
    )  # an error of the operating system while the file grows, as that of a full disk
    message, error = full.communicate()
    assert (full.returncode, message, error) == (1, "", "merge: disk: file too large\n")
    assert not (project / MERGED).exists()
    assert sorted(file.name for file in (project / MERGED).parent.iterdir()) == [ADAPTER.name, BASE.name]
    assert (merge_in(project, large / "base", large / "adapter") / SINGLE_FILE).exists()


@pytest.mark.slow
def test_a_shard_cut_short_ends_in_one_line_before_anything_is_written(llama: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(llama, base)
    new_adapter(tmp_path / "adapter", llama, target_modules=LAYERS)
    cut = sorted(base.glob("*.safetensors"))[-1]
    cut.write_bytes(cut.read_bytes()[:-10])
    ended = started("merge", project_of(tmp_path / "project", base, tmp_path / "adapter"))
    _, error = ended.communicate()
    assert ended.returncode == 1
    assert error.startswith(f"merge: {BASE}/{cut.name}: is truncated or damaged (") and error.count("\n") == 1
    assert not list((tmp_path / "project/models").glob("*merged*"))


def test_without_an_adapter_the_weights_are_the_base_models(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    BASE.parent.mkdir()
    BASE.symlink_to(llama)
    Prompt("{a}", "{b}", None, source_max_len=10).save(ADAPTER)
    merge.main(merge.Config(Merge(MergeBase.dequantized)))
    assert {path.name: path.read_bytes() for path in MERGED.glob("*.safetensors*")} == {
        path.name: path.read_bytes() for path in BASE.glob("*.safetensors*")
    }
    assert (MERGED / "prompt.json").exists()


def test_an_adapter_that_is_refused_leaves_the_earlier_model(llama: Path, tmp_path: Path) -> None:
    new_adapter(tmp_path / "adapter", llama, target_modules=LAYERS)
    first = hashes(merge_in(tmp_path, llama, tmp_path / "adapter"))
    weights = load_file(tmp_path / "adapter/adapter_model.safetensors")
    name = "base_model.model.model.layers.1.self_attn.o_proj.lora_B.weight"
    weights[name][0] = torch.nan
    save_file(weights, tmp_path / "adapter/adapter_model.safetensors")
    with pytest.raises(InputError, match=r"model\.layers\.1\.self_attn\.o_proj\.weight: would contain NaN"):
        merge_in(tmp_path, llama, tmp_path / "adapter")
    (tmp_path / "adapter/prompt.json").unlink()
    with pytest.raises(InputError, match=r"prompt\.json: not found"):
        merge_in(tmp_path, llama, tmp_path / "adapter")
    assert hashes(tmp_path / MERGED) == first
    assert not list((tmp_path / MERGED).parent.glob(".*"))
