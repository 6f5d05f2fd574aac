"""An adapter that was trained elsewhere is checked, copied, merged and measured like one that was trained here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from peft import PeftModel
from safetensors.torch import load_file, save_file

from stages.build import stage as build
from stages.evaluate import stage as evaluate
from stages.fetch import stage as fetch
from stages.merge import stage as merge
from stages.prepare import stage as prepare
from stages.train import stage as train
from tests.hub import COMMIT, Hub, client_environment
from tests.loopback import running
from tests.stages.merging import TOKENS, new_adapter
from tests.stages.recipes import MERGE
from tests.stages.training import new_repo, sections
from tools.cli.params import compose
from tunepress.config.adapter import Adapter, Method, problem
from tunepress.config.merge import Merge, MergeBase
from tunepress.core.errors import InputError
from tunepress.core.files import read_json, read_jsonl, write_json, write_jsonl
from tunepress.core.params import load
from tunepress.core.paths import ADAPTER, BASE, MERGED, METRICS
from tunepress.models.bnb_4bit import Quantization
from tunepress.models.hf_model import load_model

pytestmark = pytest.mark.usefixtures("inside")

TRL = "trl==1.16.0"


def bring(root: Path, folder: Path, **changed: str) -> str:
    return train.main(sections(root, adapter={"method": "file", "path": str(folder)} | changed))


@torch.inference_mode()
def test_it_is_merged_as_peft_merges_it(root: Path, tmp_path: Path) -> None:
    adapted = new_adapter(tmp_path, BASE, target_modules="all-linear", modules_to_save=["lm_head"], use_rslora=True)
    assert bring(root, tmp_path).startswith("0.0")
    assert read_json(METRICS / "train.json")["steps"] == 0
    merge.main(merge.Config(MERGE))
    torch.testing.assert_close(load_model(MERGED)(TOKENS).logits, adapted(TOKENS).logits, atol=1e-4, rtol=0)


@pytest.mark.slow
@torch.inference_mode()
def test_one_that_trl_trained_is_merged_as_peft_merges_it(root: Path, tmp_path: Path) -> None:
    packages, folder = tmp_path / "packages", tmp_path / "adapter"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), TRL]
    installed = subprocess.run([sys.executable, *install], capture_output=True, text=True)
    if installed.returncode and not os.environ.get("CI"):
        pytest.skip(f"no package index: {installed.stderr.strip().splitlines()[-1]}")
    command = [sys.executable, str(Path(__file__).with_name("trl_sft.py")), str(BASE.resolve()), str(folder)]
    trained = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(packages)}, capture_output=True, text=True)
    assert trained.returncode == 0, trained.stderr
    bring(root, folder)
    merge.main(merge.Config(MERGE))
    merged = PeftModel.from_pretrained(load_model(BASE, dtype=torch.float32), folder).merge_and_unload()
    torch.testing.assert_close(load_model(MERGED)(TOKENS).logits, merged(TOKENS).logits, atol=1e-4, rtol=0)
    assert not torch.allclose(merged(TOKENS).logits, load_model(BASE)(TOKENS).logits, atol=1e-2)


@pytest.mark.slow
def test_with_test_rows_and_rows_for_gptq_it_needs_no_training_rows(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_adapter(tmp_path / "adapter", BASE, target_modules="all-linear")
    phrases = read_jsonl(root / "data/raw/tone.jsonl")
    for name, rows in (("test", phrases[:20]), ("calibration", phrases[20:60])):
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    own_base = BASE.resolve()
    own_rows = ("data.files=[]", "data.test_files=test.jsonl", "data.calibration_files=calibration.jsonl")
    chosen = ("+experiment=smoke", "adapter=file", f"adapter.path={tmp_path / 'adapter'}", *own_rows)
    base = ("base_model=folder", f"base_model.path={own_base}")
    monkeypatch.chdir(root)
    (tmp_path / "params.yaml").write_text(compose([*chosen, *base]), encoding="utf-8")
    new_repo(tmp_path)
    monkeypatch.chdir(tmp_path)
    for stage in (fetch, prepare, train, merge, build):
        stage.main(load(stage.Config, []))
    for candidate in evaluate.CANDIDATES:
        evaluate.main(candidate, load(evaluate.Config, []))
    assert read_json(METRICS / "build.json")["calibration"]["rows"] == 40
    assert read_json(METRICS / "evaluate/onnx.json")["rows"] == 20


@pytest.mark.slow
def test_one_of_the_hub_is_downloaded_at_its_commit(root: Path, tmp_path: Path) -> None:
    new_adapter(tmp_path / "there", BASE, target_modules="all-linear")
    code = f"from stages.train.brought import FILES, download_snapshot; print(download_snapshot('org/tiny', '{COMMIT}', FILES))"
    with running(Hub(tmp_path / "there")) as hub:
        environment = client_environment(hub.url, tmp_path, root)
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    downloaded = Path(done.stdout.strip().splitlines()[-1])
    assert sorted(file.name for file in downloaded.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    bring(root, downloaded)


def test_a_user_says_on_which_quantized_weights_it_was_trained(root: Path, tmp_path: Path) -> None:
    new_adapter(tmp_path, BASE, target_modules="all-linear")
    bring(root, tmp_path)
    assert Quantization.load(ADAPTER) is None
    bring(root, tmp_path, bnb_4bit_quant_type="nf4")
    assert Quantization.load(ADAPTER) == Quantization("nf4", False, compensated=False, dtype="bfloat16")
    merge.main(merge.Config(Merge(MergeBase.dequantized)))


def test_an_adapter_of_this_project_brings_what_it_was_trained_on(root: Path, tmp_path: Path) -> None:
    new_adapter(tmp_path, BASE, target_modules="all-linear")
    trained_on = Quantization("fp4", True, compensated=True, dtype="float32")
    trained_on.save(tmp_path)
    bring(root, tmp_path)
    assert Quantization.load(ADAPTER) == trained_on


def test_one_of_another_base_model_is_refused_and_nothing_is_written(root: Path, tmp_path: Path) -> None:
    new_adapter(tmp_path, BASE, target_modules=["o_proj"])
    weights = load_file(tmp_path / "adapter_model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name][:, :8].contiguous()}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"has the shape .*, the base model needs .*; the adapter belongs to another one"):
        bring(root, tmp_path)
    assert not ADAPTER.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "LOHA"}, r"peft_type must be LORA, got LOHA; merge this adapter with peft"),
        ({"target_modules": ["query"]}, r"does not fit the base model"),
        ({"init_lora_weights": "pissa"}, r"the initialisation pissa changed the base model's weights"),
    ],
)
def test_a_kind_that_cannot_be_merged_is_refused_by_name(
    change: dict[str, object], message: str, root: Path, tmp_path: Path
) -> None:
    new_adapter(tmp_path, BASE, target_modules=["o_proj"])
    write_json(tmp_path / "adapter_config.json", read_json(tmp_path / "adapter_config.json") | change)
    with pytest.raises(InputError, match=message):
        bring(root, tmp_path)


def test_a_folder_without_an_adapter_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"adapter_config\.json: not found"):
        bring(root, tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": Method.file}, "adapter.path: must be set for adapter=file"),
        ({"method": Method.hub, "repo_id": "a/b"}, "adapter.revision: must be set for adapter=hub"),
        ({"method": Method.hub, "repo_id": "a/b", "revision": "main"}, "adapter.revision: must be a commit (40 hex digits)"),
        ({"path": "x"}, "adapter.path: only adapter=file reads it; "),
        (
            {"method": Method.file, "path": "x", "bnb_4bit_use_double_quant": True},
            "adapter.bnb_4bit_use_double_quant: needs adapter.bnb_4bit_quant_type",
        ),
        ({"method": Method.file, "path": "x", "revision": COMMIT}, "adapter.revision: only adapter=hub reads it; "),
    ],
)
def test_its_place_must_fit_the_method(values: dict[str, object], message: str, root: Path) -> None:
    default = sections(root).adapter
    changed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(default), values))
    assert isinstance(changed, Adapter)
    assert (problem(changed) or "").startswith(message)
