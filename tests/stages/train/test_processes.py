"""Several processes: the loss curve and the adapter of one process that accumulates, and every row learned once an epoch.

Started as a program, by torchrun, this module trains once for each of JOBS in every process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from stages.train import stage as train
from stages.train.checkpoints import FOLDER
from stages.train.trainer import EMPTY, PaddingFreeTrainer
from tests.stages.params import write_params
from tests.stages.training import WEIGHTS, curve, metrics, row, sections
from tunepress.core.files import read_jsonl, write_json, write_jsonl
from tunepress.core.paths import ADAPTER, METRICS, PREPARED, TIMINGS

ROOT = Path(__file__).resolve().parents[3]
ROWS = 17  # of 24 in three steps of two batches of four: one process's last batch has no row at all
SGD: dict[str, Any] = {"num_train_epochs": 2, "optim": "sgd", "learning_rate": 0.1}  # Adam blows rounding up to a step's size
ADAPTERS: dict[str, dict[str, Any]] = {"lora": {}, "qlora": {"method": "qlora"}, "olora": {"init_lora_weights": "olora"}}
JOBS = {f"{name} {way}": (adapter, way == "fsdp") for way in ("ddp", "fsdp") for name, adapter in ADAPTERS.items()}
TOGETHER = Path("together")
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "--module")

pytestmark = pytest.mark.slow


def train_every_job() -> None:
    """What each of two processes does: notes which rows it learns and keeps what the training wrote."""
    rank = int(os.environ["RANK"])
    learned: list[tuple[int, list[list[int]]]] = []

    class Recorder(PaddingFreeTrainer):
        def compute_loss(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], *rest: Any, **options: Any) -> Any:
            starts = (inputs["position_ids"][0] == 0).nonzero().squeeze(-1).tolist()
            examples = [part.tolist() for part in inputs["input_ids"][0].tensor_split(starts[1:])]
            learned.append((int(self.state.epoch or 0), examples))
            return super().compute_loss(model, inputs, *rest, **options)

    train.PaddingFreeTrainer = Recorder  # type: ignore[misc]
    for name, (adapter, fsdp) in JOBS.items():
        learned.clear()
        train.main(sections(ROOT, adapter=adapter, num_processes=2, fsdp=fsdp, **SGD))
        write_json(TOGETHER / name / f"learned{rank}.json", learned)
        if rank == 0:
            shutil.copytree(ADAPTER, TOGETHER / name / "adapter")
            shutil.copytree(METRICS, TOGETHER / name / "metrics")
        torch.distributed.barrier()


def start(*command: str, **variables: str) -> subprocess.Popen[str]:
    """Starts python on the code under test."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
    return subprocess.Popen(
        [sys.executable, "-m", *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What a process that ends well has printed."""
    message, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints
    return message


@pytest.fixture(scope="module", autouse=True)
def rows(project: Path) -> None:
    write_jsonl(project / PREPARED / "train.jsonl", [row(number, "train") for number in range(ROWS)])


@pytest.fixture(scope="module")
def together(project: Path, rows: None) -> Path:
    """What two processes wrote for each job."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(project)
        finish(start(*TORCHRUN, "tests.stages.train.test_processes"))
        shutil.rmtree(METRICS)
        shutil.rmtree(ADAPTER)
    return project / TOGETHER


@pytest.fixture(autouse=True)
def here(inside: Path) -> Iterator[None]:
    """Each test begins in the project, without what another has made."""
    yield
    Path("params.yaml").unlink(missing_ok=True)


def assert_same_adapter(folder: Path, other: dict[str, torch.Tensor]) -> None:
    weights = load_file(folder / WEIGHTS.name)
    assert weights.keys() == other.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-6, rtol=1e-4)


def measured(folder: Path) -> dict[str, Any]:
    """The metrics and the curves below a folder."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        return metrics() | {name: curve(name) for name in ("train/loss", "eval/loss")}


def approximately(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: pytest.approx(value, rel=1e-5) for name, value in figures.items()}


# the same training


@pytest.mark.parametrize("name", ADAPTERS)
def test_two_processes_learn_what_one_does_that_accumulates(name: str, root: Path, together: Path) -> None:
    train.main(sections(root, adapter=ADAPTERS[name], gradient_accumulation_steps=2, **SGD))
    alone = measured(Path())
    assert alone["steps"] == 6
    assert list(alone["train/loss"]) == [1, 2, 3, 4, 5, 6]
    assert list(alone["eval/loss"]) == [2, 4, 6]
    for way in ("ddp", "fsdp"):
        assert measured(together / f"{name} {way}") == approximately(alone)
        assert_same_adapter(together / f"{name} {way}" / "adapter", load_file(WEIGHTS))


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_every_row_is_learned_once_an_epoch(way: str, root: Path, together: Path) -> None:
    all_rows = sorted(sequence[0]["input_ids"] for sequence in train.read_examples(sections(root).train)["train"])
    assert len(all_rows) == ROWS
    learned = [json.loads((together / f"lora {way}" / f"learned{rank}.json").read_text()) for rank in (0, 1)]
    assert [len(batches) for batches in learned] == [6, 6]
    for epoch in (0, 1):
        examples = [example for rank in learned for at, batch in rank if at == epoch for example in batch]
        assert sorted(example for example in examples if example != EMPTY[0]["input_ids"]) == all_rows
        assert len(examples) == 24
    assert [batch for _, batch in learned[0][:3]] != [batch for _, batch in learned[0][3:]]  # each epoch in another order


# how it is started, and how it ends


def test_a_killed_process_ends_the_run_and_the_next_run_goes_on_to_the_same_adapter(root: Path) -> None:
    settings: dict[str, Any] = {"max_steps": 120, "eval_steps": 30, "save_steps": 30, **SGD}
    write_params(sections(root, num_processes=2, **settings))
    killed = start("stages.train")
    until = time.monotonic() + 120
    while not any(Path(FOLDER).glob("*/checkpoint-*")):
        if killed.poll() is not None or time.monotonic() > until:
            killed.kill()
            pytest.fail(f"ended without a checkpoint: {killed.communicate()}")
        time.sleep(0.02)
    workers = psutil.Process(killed.pid).children()
    assert len(workers) == 2
    workers[1].send_signal(signal.SIGKILL)
    killed.communicate(timeout=120)
    assert killed.returncode > 0
    assert not ADAPTER.exists()

    resumed = start(*TORCHRUN, "stages.train")
    message, progress = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, progress
    assert " 0/120" in progress
    assert "/120" in progress
    assert " 1/120" not in progress
    plan, left, end = message.splitlines()  # by the first process alone
    assert plan.startswith(f"train: 0.01 of 0 M parameters, {ROWS} sequences of ")
    assert ", 120 steps of 8, 4 validations of " in plan
    assert " left with all validations, at the " in left
    assert end.startswith("train: 0.01 M parameters trained in models/adapter ")
    assert (TIMINGS / "train.json").exists()
    assert list(Path(FOLDER).iterdir()) == []
    weights, actual = load_file(WEIGHTS), measured(Path())

    train.main(sections(root, gradient_accumulation_steps=2, **settings))
    assert measured(Path()) == approximately(actual)
    assert_same_adapter(ADAPTER, weights)


def test_processes_on_two_machines_learn_what_two_on_one_do(root: Path, together: Path) -> None:
    write_params(sections(root, **SGD))
    existing = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": "29519"}
    machines = [start("stages.train", **existing, PET_NODE_RANK=str(rank)) for rank in (0, 1)]
    first, second = [finish(machine) for machine in machines]
    assert len(first.splitlines()) == 3
    assert second == ""
    assert measured(Path()) == approximately(measured(together / "lora ddp"))
    assert_same_adapter(ADAPTER, load_file(together / "lora ddp/adapter" / WEIGHTS.name))


def test_an_error_in_a_process_ends_the_run_with_one_line_of_ours(root: Path) -> None:
    write_params(sections(root, num_processes=2, lr_scheduler_type="linaer"))
    done = start("stages.train.launch", *TORCHRUN[1:], "stages.train")
    _, complaints = done.communicate(timeout=120)
    assert done.returncode == 1
    ours = {line for line in complaints.splitlines() if line.startswith("train: ")}
    assert len(ours) == 1
    assert "linaer" in ours.pop()
    assert "Traceback" not in complaints
    assert not ADAPTER.exists()
    assert len(read_jsonl(PREPARED / "train.jsonl")) == ROWS


if __name__ == "__main__":
    train_every_job()
