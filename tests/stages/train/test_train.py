"""train: the same adapter to the byte for the same inputs, whatever the machine's mood, and one line for a wrong setting."""

import hashlib
import json
import os
import subprocess
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf.errors import ValidationError
from safetensors.torch import load_file

from stages.train import stage as train
from stages.train.checkpoints import FOLDER
from tests.stages.params import write_params
from tests.stages.training import CONFIG, WEIGHTS, curve, hashes, metrics, refusal, sections
from tunepress.core.cpu import FreeCores
from tunepress.core.files import read_jsonl, write_jsonl
from tunepress.core.paths import ADAPTER, LOSS_CURVES, METRICS, PREPARED

pytestmark = pytest.mark.usefixtures("inside")


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


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 16])
def test_threads_and_hash_seeds_of_the_process_change_no_byte(rows: int, root: Path) -> None:
    """Few rows of few tokens are what oneMKL's products depend on threads with: see tunepress/models/threads.py."""
    write_params(sections(root, adapter={"r": 16}, per_device_train_batch_size=rows, max_steps=6))
    actual = []
    for threads, hash_seed in ((1, 0), (3, 7), (16, 7)):
        environment = {"OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(root)}
        environment["MKL_DYNAMIC"] = "FALSE"  # more threads than cores
        command = [sys.executable, "-m", "stages.train"]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        actual.append(
            hashes() | {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in LOSS_CURVES.rglob("*.tsv")}
        )
    assert [digests == actual[0] for digests in actual] == [True] * 3


def test_threads_that_other_processes_take_and_leave_change_no_byte(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "use_all_cores", lambda: torch.set_num_threads(3))
    hashed = []
    for numbers in ([1], [3, 1, 2]):
        threads = cycle(numbers)
        monkeypatch.setattr(FreeCores, "__call__", lambda _, threads=threads: next(threads))
        train.main(sections(root, adapter={"r": 16}, max_steps=6))
        assert next(threads) == numbers[6 % len(numbers)], "asked for before each step"
        hashed.append(hashes())
    assert hashed[0] == hashed[1]


def test_the_adapter_carries_the_prompt_and_nothing_of_this_machine(root: Path, project: Path) -> None:
    train.main(sections(root))
    assert set(hashes()) == {WEIGHTS.name, CONFIG.name, "prompt.json"}
    assert (ADAPTER / "prompt.json").read_bytes() == (PREPARED / "prompt.json").read_bytes()
    assert str(project) not in CONFIG.read_text(encoding="utf-8")


# what is trained


def test_training_lowers_the_loss_and_moves_every_targeted_module(root: Path) -> None:
    message = train.main(sections(root, num_train_epochs=3.0))
    losses = list(curve("train/loss").values())
    assert losses[-1] < losses[0]
    weights = load_file(WEIGHTS)
    assert len(weights) == 2 * 4 * 2  # A and B of four fused modules in two layers
    assert all(tensor.any() for tensor in weights.values())
    measured = metrics()
    assert measured["trainable_parameters"] == sum(tensor.numel() for tensor in weights.values())
    assert measured["steps"] == 12
    assert str(ADAPTER) in message


def test_only_the_targeted_modules_are_trained(root: Path) -> None:
    train.main(sections(root, adapter={"target_modules": ["qkv_proj", "o_proj"]}, max_steps=1))
    names = {name.split(".")[-3] for name in load_file(WEIGHTS)}
    assert names == {"qkv_proj", "o_proj"}
    assert json.loads(CONFIG.read_text(encoding="utf-8"))["target_modules"] == ["o_proj", "qkv_proj"]


def test_a_regular_expression_picks_modules(root: Path) -> None:
    train.main(sections(root, adapter={"target_modules": r".*layers\.1\..*down_proj"}, max_steps=1))
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
    assert {path.name for path in project.iterdir()} - before == {METRICS.name, FOLDER}
    assert list(Path(FOLDER).iterdir()) == []
    assert not (project / "dvc.yaml").exists()


# what is refused


@pytest.mark.parametrize(
    "target_modules",
    [["q_proj"], ["o_proj", "q_proj"], ["o_proj", "proj"], r".*\.q_proj"],
    ids=["none", "one of two", "part of a name", "expression"],
)
def test_modules_that_are_not_there_are_refused_with_those_that_are(target_modules: list[str] | str, root: Path) -> None:
    message = refusal(sections(root, adapter={"target_modules": target_modules}))
    assert message.startswith("adapter.target_modules: ")
    assert "o_proj'" not in message
    assert message.endswith("; the model has down_proj, gate_up_proj, lm_head, o_proj, qkv_proj")


@pytest.mark.parametrize(("name", "value"), [("lr_scheduler_type", "linaer"), ("eval_strategy", "sometimes"), ("optim", "adamm")])
def test_an_unknown_choice_is_refused_in_one_line_and_an_earlier_adapter_stays(name: str, value: str, root: Path) -> None:
    ADAPTER.mkdir(parents=True)
    (ADAPTER / "earlier").touch()
    message = refusal(sections(root, **{name: value}))  # type: ignore[arg-type]
    assert message.startswith("train")
    assert value in message
    assert [path.name for path in ADAPTER.iterdir()] == ["earlier"]


def test_an_unknown_sampling_strategy_is_refused(root: Path) -> None:
    with pytest.raises(ValidationError, match="by_mood"):
        sections(root, train_sampling_strategy="by_mood")


def test_without_an_adapter_nothing_is_trained_and_the_prompt_goes_on(root: Path, tiny_phi3: Path) -> None:
    train.main(sections(root, adapter={"method": "none"}))
    assert [path.name for path in ADAPTER.iterdir()] == ["prompt.json"]
    assert curve("train/loss") == {}
    parameters = sum(weight.numel() for weight in load_file(tiny_phi3 / "model.safetensors").values())
    assert metrics() == {"parameters": parameters, "trainable_parameters": 0, "steps": 0}


def test_bfloat16_learns_what_float32_learns_but_for_rounding(root: Path) -> None:
    train.main(sections(root))
    exact = metrics()["train_loss"]
    train.main(sections(root, bf16=True))
    assert metrics()["train_loss"] == pytest.approx(exact, rel=0.02)
    assert all(tensor.dtype == torch.float32 for tensor in load_file(WEIGHTS).values())
