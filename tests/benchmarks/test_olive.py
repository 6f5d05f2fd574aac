"""benchmarks.olive: both contenders get one file and one set of rows; the table has what failed and what was noticed."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.olive import __main__ as olive
from benchmarks.olive import config
from benchmarks.olive.config import CONFIG, TEST, TRAIN, Task
from benchmarks.olive.contenders import WEIGHTS, Outcome
from benchmarks.processes import Usage
from tunepress.core.errors import InputError
from tunepress.core.files import read_json, read_jsonl
from tunepress.core.params import CONF

GOOD: dict[str, Any] = {
    "right": {"merged": 228, "int4": 227},
    "test_rows": 240,
    "seconds": {"train": 200.0, "merge": 3.0, "build": 20.0},
    "whole_seconds": 230.0,
    "cpu_seconds": 400.0,
    "peak_memory_mb": 2100,
    "size_mb": 117.2,
    "error": None,
    "same_bytes": {"adapter": True, "int4 model": True},
    "edit_noticed": True,
    "edit_seconds": 231.0,
}
FAILED = GOOD | {
    "right": {"merged": 200},
    "seconds": {"train": 300.0, "merge": 4.0},
    "size_mb": None,
    "error": "exit code 1: no such option",
    "same_bytes": {"adapter": False},
    "edit_noticed": False,
}


@pytest.fixture
def task(tiny_phi3: Path) -> Task:
    """A little work on a model with fused projections."""
    return Task(tiny_phi3, rows=40, test_rows=12, steps=2)


def shown(results: dict[str, Any], task: Task) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(olive.contenders_table(results, task, [0]))
    return captured.get()


def test_the_rows_are_in_balance_and_none_is_for_both(task: Task, tmp_path: Path) -> None:
    config.write(task, 0, tmp_path / "inputs")
    learned, tested = (read_jsonl(tmp_path / "inputs" / name) for name in (TRAIN, TEST))
    assert set(Counter(row["tone"] for row in learned).values()) == {10}
    assert set(Counter(row["tone"] for row in tested).values()) == {3}
    assert not {row["phrase"] for row in learned} & {row["phrase"] for row in tested}


def test_the_file_names_the_models_own_projections_the_seed_and_the_steps(task: Task, tmp_path: Path) -> None:
    config.write(task, 7, tmp_path / "inputs")
    lora = read_json(tmp_path / "inputs" / CONFIG)["passes"]["lora"]
    assert lora["target_modules"] == ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]
    assert {name: lora["training_args"][name] for name in ("seed", "data_seed", "max_steps")} == {
        "seed": 7,
        "data_seed": 7,
        "max_steps": 2,
    }


def test_the_file_imports_without_a_loss(task: Task, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / CONF, tmp_path / CONF)
    config.write(task, 0, tmp_path / "inputs")
    command = [sys.executable, "-m", "tools.olive", f"inputs/{CONFIG}", "--name", "mine", "--strict"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / CONF / "experiment/mine.yaml").read_text(encoding="utf-8")
    assert "algo_config: k_quant_mixed # passes.builder.int4_algo_config" in text
    assert "labels: [fear, joy, sadness, surprise]" in text


def test_an_edit_changes_the_words_of_one_row_and_its_file_alone(task: Task, tmp_path: Path) -> None:
    folder = tmp_path / "inputs"
    config.write(task, 0, folder)
    before, content = read_jsonl(folder / TRAIN), (folder / CONFIG).read_bytes()
    config.edit(folder)
    after = read_jsonl(folder / TRAIN)
    assert [old == new for old, new in zip(before, after, strict=True)] == [False] + 39 * [True]
    assert after[0]["tone"] == before[0]["tone"]
    assert (folder / CONFIG).read_bytes() == content


@pytest.mark.parametrize(("rows", "test_rows"), [(39, 12), (1200, 1), (40, 0)])
def test_rows_that_there_are_not_are_refused(rows: int, test_rows: int, tiny_phi3: Path) -> None:
    with pytest.raises(InputError, match="--rows, --test-rows"):
        Task(tiny_phi3, rows, test_rows, None).check()


def test_without_a_model_the_command_ends_in_one_line(root: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "benchmarks.olive", "--model", str(tmp_path)]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"benchmarks.olive: {tmp_path}: no model; run `make repro` first, or give another --model\n"


def test_the_hashes_are_those_of_the_weights(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(b"adapter")
    (tmp_path / "model.onnx.data").write_bytes(b"int4")
    whole, half = (Outcome(Usage(1, 1, 1), {}, tmp_path, onnx) for onnx in (tmp_path, None))
    assert whole.hashes().keys() == {"adapter", "int4 model"}
    assert half.hashes() == {"adapter": whole.hashes()["adapter"]}
    before = whole.hashes()
    (tmp_path / WEIGHTS).write_bytes(b"another")
    assert whole.hashes()["adapter"] != before["adapter"]
    assert whole.hashes()["int4 model"] == before["int4 model"]


def test_a_builder_that_fails_is_a_result(task: Task) -> None:
    results = {"tunepress": GOOD, "olive": FAILED}
    text = shown(results, task)
    assert "failed" in text
    assert "adapter: other bytes" in text
    assert "not noticed" in text
    error, merged = olive.sentences(results)  # without an int4 accuracy to compare with
    assert error == "Olive built no int4 model: exit code 1: no such option"
    assert merged.startswith("Tunepress's merged accuracy of 0.950 is ")


@pytest.mark.parametrize(("right", "where"), [(228, "within"), (205, "below"), (239, "above")])
def test_the_accuracy_is_compared_with_olives_interval(right: int, where: str) -> None:
    ours = GOOD | {"right": {"merged": right, "int4": 227}}
    merged, _ = olive.sentences({"tunepress": ours, "olive": GOOD})
    assert f" is {where} Olive's interval of 0.915 to 0.971." in merged
