"""train: the same adapter to the byte for the same inputs, whatever the machine's mood, and one line for a wrong setting."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError
from safetensors.torch import load_file

from stages import train
from stages.lib.edge.errors import InputError
from stages.lib.edge.outputs import read_jsonl, write_jsonl
from stages.lib.edge.paths import ADAPTER, LOSS_CURVES, METRICS, PREPARED
from stages.lib.prompt import Prompt

WEIGHTS, CONFIG = ADAPTER / "adapter_model.safetensors", ADAPTER / "adapter_config.json"
TONES = ("joy", "fear", "surprise")
SHORT = {  # four steps an epoch, whatever the default recipe becomes
    "num_train_epochs": 1,
    "max_steps": -1,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 2,
}


@pytest.fixture(scope="module")
def project(root: Path, tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with a base model and prepared rows: DVCLive wants a git repo with a commit and DVC in it."""
    folder = tmp_path_factory.mktemp("train")
    for command in (
        ["git", "init", "--quiet"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "--allow-empty", "-m", "first"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
    ):
        subprocess.run(command, cwd=folder, check=True)
    (folder / "models").mkdir()
    (folder / "models/base").symlink_to(tiny_phi3)
    prepared = folder / PREPARED
    prepared.mkdir(parents=True)
    Prompt("Text: {phrase}\nTone: ", "{tone}", TONES, source_max_len=100, max_new_tokens=9).save(prepared)
    for name, count in (("train", 16), ("validation", 6)):
        write_jsonl(prepared / f"{name}.jsonl", [row(number, name) for number in range(count)])
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads only get in each other's way on a model this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(project)
    yield
    for made in (ADAPTER, METRICS):
        shutil.rmtree(made, ignore_errors=True)


def row(number: int, name: str) -> dict[str, Any]:
    tone = TONES[number % 3]
    prompt = f"Text: {'so ' * (number % 5)}{tone[:2]} of {name} {number}\nTone: "
    return {"source": f"{name} row {number}", "prompt": prompt, "completion": tone, "expected": tone}


def sections(root: Path, seed: int = 0, target_modules: Any = "all-linear", **settings: Any) -> train.Sections:
    given: Any = {
        "adapter": OmegaConf.load(root / "conf/adapter/lora.yaml"),
        "train": OmegaConf.load(root / "conf/train/default.yaml"),
        "seed": seed,
    }
    changed = {"adapter": {"target_modules": target_modules, "r": 4}, "train": SHORT | settings}
    cfg = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(train.Sections), given, changed))
    assert isinstance(cfg, train.Sections)
    return cfg


def hashes() -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(ADAPTER.iterdir())}


def curve(name: str) -> dict[int, float]:
    """A loss curve as DVCLive wrote it, by step."""
    path = LOSS_CURVES / f"{name}.tsv"
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        return {int(line["step"]): float(line[path.stem]) for line in csv.DictReader(file, delimiter="\t")}


def metrics() -> Any:
    return json.loads((METRICS / "train.json").read_text(encoding="utf-8"))


def refusal(cfg: train.Sections) -> str:
    """The one line that train refuses its sections with."""
    with pytest.raises(InputError) as refused:
        train.main(cfg)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# the same bytes


def test_a_second_training_gives_the_same_bytes_and_another_seed_others(root: Path) -> None:
    train.main(sections(root))
    first = hashes()
    train.main(sections(root))
    assert hashes() == first
    train.main(sections(root, seed=1))
    other = hashes()
    assert other[WEIGHTS.name] != first[WEIGHTS.name]
    assert other[CONFIG.name] == first[CONFIG.name]


def test_threads_and_hash_seeds_of_the_process_change_no_byte(root: Path) -> None:
    OmegaConf.save(OmegaConf.structured(sections(root, per_device_train_batch_size=16)), "params.yaml")
    found = []
    for threads, hash_seed in ((1, 0), (2, 7)):
        environment = {"OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(root)}
        command = [sys.executable, "-m", "stages.train"]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found.append(hashes() | {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in LOSS_CURVES.rglob("*.tsv")})
    assert found[0] == found[1]


def test_the_adapter_carries_the_prompt_and_nothing_of_this_machine(root: Path, project: Path) -> None:
    train.main(sections(root))
    assert set(hashes()) == {WEIGHTS.name, CONFIG.name, "prompt.json"}
    assert (ADAPTER / "prompt.json").read_bytes() == (PREPARED / "prompt.json").read_bytes()
    assert str(project) not in CONFIG.read_text(encoding="utf-8")


# what is trained


def test_training_lowers_the_loss_and_moves_every_targeted_module(root: Path) -> None:
    said = train.main(sections(root, num_train_epochs=3.0))
    losses = list(curve("train/loss").values())
    assert losses[-1] < losses[0]
    weights = load_file(WEIGHTS)
    assert len(weights) == 2 * 4 * 2  # A and B of four fused modules in two layers
    assert all(tensor.any() for tensor in weights.values())
    measured = metrics()
    assert measured["trainable_parameters"] == sum(tensor.numel() for tensor in weights.values())
    assert measured["steps"] == 12
    assert str(ADAPTER) in said


def test_only_the_targeted_modules_are_trained(root: Path) -> None:
    train.main(sections(root, target_modules=["qkv_proj", "o_proj"], max_steps=1))
    names = {name.split(".")[-3] for name in load_file(WEIGHTS)}
    assert names == {"qkv_proj", "o_proj"}
    assert json.loads(CONFIG.read_text(encoding="utf-8"))["target_modules"] == ["o_proj", "qkv_proj"]


def test_a_regular_expression_picks_modules(root: Path) -> None:
    train.main(sections(root, target_modules=r".*layers\.1\..*down_proj", max_steps=1))
    assert all(".layers.1.mlp.down_proj." in name for name in load_file(WEIGHTS))


def test_accumulated_batches_are_one_large_batch(root: Path) -> None:
    plain: Any = {"optim": "sgd", "learning_rate": 0.1}  # SGD: Adam would blow rounding up to the size of a step
    train.main(sections(root, per_device_train_batch_size=8, **plain))
    large, large_losses = load_file(WEIGHTS), curve("train/loss")
    train.main(sections(root, per_device_train_batch_size=2, gradient_accumulation_steps=4, **plain))
    assert metrics()["steps"] == 2
    assert curve("train/loss") == pytest.approx(large_losses, abs=1e-3)
    for name, tensor in load_file(WEIGHTS).items():
        torch.testing.assert_close(tensor, large[name], atol=1e-6, rtol=1e-3)


def test_gradient_checkpointing_changes_memory_and_not_the_adapter(root: Path) -> None:
    train.main(sections(root))
    without = load_file(WEIGHTS)
    train.main(sections(root, gradient_checkpointing=True))
    for name, tensor in load_file(WEIGHTS).items():
        torch.testing.assert_close(tensor, without[name])


def test_the_prompt_is_learned_too_if_asked(root: Path) -> None:
    train.main(sections(root))
    completion_only = load_file(WEIGHTS)
    train.main(sections(root, completion_only_loss=False))
    assert any((tensor - completion_only[name]).abs().max() > 1e-4 for name, tensor in load_file(WEIGHTS).items())


def test_the_order_of_the_rows_depends_on_data_seed(root: Path) -> None:
    train.main(sections(root))
    first = curve("train/loss")
    train.main(sections(root, data_seed=1))
    assert curve("train/loss") != first


def test_rows_of_one_length_can_be_grouped(root: Path) -> None:
    train.main(sections(root, train_sampling_strategy="group_by_length"))
    assert metrics()["steps"] == 4


# the curves


def test_curves_stand_at_optimizer_steps(root: Path) -> None:
    train.main(sections(root, per_device_train_batch_size=2, gradient_accumulation_steps=2))
    assert list(curve("train/loss")) == list(curve("train/learning_rate")) == list(curve("train/grad_norm")) == [1, 2, 3, 4]
    assert list(curve("eval/loss")) == [2, 4]
    assert metrics()["eval_loss"] == pytest.approx(curve("eval/loss")[4], abs=1e-6)
    assert {path.relative_to(LOSS_CURVES).as_posix() for path in LOSS_CURVES.rglob("*.*")} == {
        "train/loss.tsv", "train/learning_rate.tsv", "train/grad_norm.tsv", "eval/loss.tsv",
    }  # fmt: skip


def test_max_steps_ends_training_between_evaluations_and_the_last_loss_is_still_measured(root: Path) -> None:
    train.main(sections(root, max_steps=3))
    assert metrics()["steps"] == 3
    assert list(curve("train/loss")) == [1, 2, 3]
    assert metrics()["eval_loss"] != pytest.approx(curve("eval/loss")[2], abs=1e-6)


def test_without_evaluation_the_validation_loss_is_measured_once_at_the_end(root: Path) -> None:
    train.main(sections(root, eval_strategy="no"))
    assert metrics()["eval_loss"] > 0
    assert list(curve("eval/loss")) in ([], [4])


def test_without_validation_rows_there_is_no_validation_loss(root: Path, project: Path) -> None:
    path = project / PREPARED / "validation.jsonl"
    rows = read_jsonl(path)
    path.write_text("")
    try:
        train.main(sections(root))
    finally:
        write_jsonl(path, rows)
    assert "eval_loss" not in metrics()
    assert curve("eval/loss") == {}


def test_training_leaves_the_working_folder_clean(root: Path, project: Path) -> None:
    before = {path.name for path in project.iterdir()}
    train.main(sections(root, max_steps=1))
    assert {path.name for path in project.iterdir()} - before == {METRICS.name}
    assert not (project / "dvc.yaml").exists()


# what is refused


@pytest.mark.parametrize(
    "target_modules",
    [["q_proj"], ["o_proj", "q_proj"], ["o_proj", "proj"], r".*\.q_proj"],
    ids=["none", "one of two", "part of a name", "expression"],
)
def test_modules_that_are_not_there_are_refused_with_those_that_are(target_modules: list[str] | str, root: Path) -> None:
    said = refusal(sections(root, target_modules=target_modules))
    assert said.startswith("adapter.target_modules: ")
    assert "o_proj'" not in said
    assert said.endswith("; the model has down_proj, gate_up_proj, lm_head, o_proj, qkv_proj")


@pytest.mark.parametrize(("name", "value"), [("lr_scheduler_type", "linaer"), ("eval_strategy", "sometimes"), ("optim", "adamm")])
def test_an_unknown_choice_is_refused_in_one_line_and_an_earlier_adapter_stays(name: str, value: str, root: Path) -> None:
    ADAPTER.mkdir(parents=True)
    (ADAPTER / "earlier").touch()
    said = refusal(sections(root, **{name: value}))  # type: ignore[arg-type]
    assert said.startswith("train")
    assert value in said
    assert [path.name for path in ADAPTER.iterdir()] == ["earlier"]


def test_an_unknown_sampling_strategy_is_refused(root: Path) -> None:
    with pytest.raises(ValidationError, match="by_mood"):
        sections(root, train_sampling_strategy="by_mood")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU trains in bfloat16")
def test_bfloat16_without_a_gpu_is_refused(root: Path) -> None:
    assert "bf16" in refusal(sections(root, bf16=True))
