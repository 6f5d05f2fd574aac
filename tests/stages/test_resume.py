"""Resuming: whenever a training is killed, the next one ends with the bytes of one that was left in peace."""

import gc
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages import train
from stages.lib.edge.paths import ADAPTER, LOSS_CURVES, METRICS
from stages.lib.padding_free import PaddingFreeTrainer
from stages.lib.resumption import FOLDER, PARTIAL
from tests.stages.training import metrics, sections

pytestmark = pytest.mark.usefixtures("inside")

DROPOUT = {"lora_dropout": 0.1}  # draws at random in each step
SMALL: dict[str, Any] = {  # 8 steps in 3 epochs: of two accumulated batches, two, two; the last one cut short
    "num_train_epochs": 2.5,
    "per_device_train_batch_size": 3,
    "gradient_accumulation_steps": 2,
    "logging_steps": 4,
    "eval_steps": 3,
    "save_steps": 2,
}
BEST: dict[str, Any] = {"load_best_model_at_end": True, "eval_steps": 2, "save_steps": 2, "num_train_epochs": 4}
WORSE: dict[str, Any] = BEST | {"learning_rate": 0.5, "lr_scheduler_type": "constant"}  # too fast to go on learning


class KilledError(Exception):
    """Ends a training where nothing expects an end."""


@dataclass
class Watch(TrainerCallback):
    """Notes the steps of a training and kills it after an event at one of them."""

    event: str = ""
    step: int = 0
    steps: list[int] = field(default_factory=list)

    def told(self, event: str, state: TrainerState) -> None:
        if (event, state.global_step) == (self.event, self.step):
            raise KilledError

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.steps.append(state.global_step)
        self.told("step", state)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.told("save", state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.told("evaluate", state)

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.told("epoch", state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.told("end", state)


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """Spares accelerate, which collects garbage at each training, all that is imported: half a second."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def project_as_it_was(inside: Path) -> Iterator[None]:
    yield
    (inside / "params.yaml").unlink(missing_ok=True)


def train_watched(cfg: train.Sections, event: str = "", step: int = 0) -> list[int]:
    """Trains, to the end or to the kill, and gives the steps that were trained."""
    watch, make = Watch(event, step), train.make_trainer

    def watched(*arguments: Any) -> PaddingFreeTrainer:
        trainer = make(*arguments)
        trainer.add_callback(watch)
        return trainer

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train, "make_trainer", watched)
        if event:
            with pytest.raises(KilledError):
                train.main(cfg)
        else:
            train.main(cfg)
    return watch.steps


def outputs() -> dict[str, bytes]:
    """All that a training writes, but for its seconds."""
    files = [*ADAPTER.iterdir(), *LOSS_CURVES.rglob("*.tsv"), METRICS / "train.json"]
    return {str(path): path.read_bytes() for path in sorted(files)}


def undisturbed(cfg: train.Sections) -> dict[str, bytes]:
    """What a training writes that is left in peace; nothing of it stays."""
    train.main(cfg)
    found = outputs()
    forget()
    return found


def forget() -> None:
    """Removes what a training has written, as DVC does before it runs the stage again."""
    for made in (ADAPTER, METRICS):
        shutil.rmtree(made, ignore_errors=True)


def last_step() -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    return max((int(path.name.rpartition("-")[2]) for path in Path(FOLDER).glob("*/checkpoint-*")), default=0)


def assert_resumes(cfg: train.Sections, event: str, step: int, checkpoint: int) -> list[int]:
    """Kills a training after an event of a step and lets it end; gives the steps of the second run."""
    expected = undisturbed(cfg)
    train_watched(cfg, event, step)
    assert last_step() == checkpoint
    forget()
    steps = train_watched(cfg)
    assert outputs() == expected
    assert list(Path(FOLDER).iterdir()) == []
    assert steps[:1] in ([], [checkpoint + 1])
    return steps


# real kills


@dataclass
class Run:
    """A training in a process of its own, whose checkpoints can be waited for."""

    process: subprocess.Popen[str]
    complaints: Path

    @classmethod
    def start(cls, root: Path, complaints: Path) -> "Run":
        environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "stages.train"]
        with complaints.open("w") as stream:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=stream, text=True)
        return cls(process, complaints)

    def wait_for(self, what: Callable[[], bool]) -> None:
        until = time.monotonic() + 120
        while not what():
            assert self.process.poll() is None, self.complaints.read_text()[-2000:]
            assert time.monotonic() < until
            time.sleep(0.0005)

    def kill(self) -> None:
        self.process.kill()
        assert self.process.wait() < 0

    def end(self) -> None:
        assert self.process.wait(timeout=120) == 0, self.complaints.read_text()[-2000:]

    def steps(self, total: int) -> list[int]:
        """Those that the progress bar has shown."""
        return [int(shown) for shown in re.findall(rf" (\d+)/{total}\b", self.complaints.read_text())]


def writing() -> bool:
    """Whether a checkpoint is being written."""
    return any(Path(FOLDER).glob(f"*/{PARTIAL}/checkpoint-*"))


def test_ten_kills_in_a_row_at_random_moments_change_no_byte(root: Path, tmp_path: Path) -> None:
    total, apart = 210, 4
    settings: dict[str, Any] = {"num_train_epochs": 70, "save_steps": apart, "logging_steps": 5, "eval_steps": 7}
    batches = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}  # 8 batches an epoch: steps of 3, 3, 2
    OmegaConf.save(OmegaConf.structured(sections(root, adapter=DROPOUT, **batches, **settings)), "params.yaml")
    chance = random.Random(7)

    peaceful = Run.start(root, tmp_path / "peaceful")
    peaceful.wait_for(lambda: last_step() >= 20)
    begun, before = time.monotonic(), last_step()
    peaceful.wait_for(lambda: last_step() >= 120)
    pace = (time.monotonic() - begun) / (last_step() - before)  # seconds a step
    peaceful.end()
    expected = outputs()
    forget()

    while_writing, started_from = [], []
    for kill in range(10):
        started_from.append(last_step())
        run = Run.start(root, tmp_path / f"killed {kill}")
        awaited = started_from[-1] + apart * chance.randint(1, 2)
        run.wait_for(lambda least=awaited: last_step() >= least)  # type: ignore[misc]
        if kill % 2:
            run.wait_for(writing)
        else:
            time.sleep(chance.random() * apart * pace)
        run.kill()
        while_writing.append(writing())
        assert [step for step in run.steps(total) if 0 < step < started_from[-1]] == []
        assert not ADAPTER.exists()
    print(pace, started_from, while_writing)
    assert started_from == sorted(set(started_from))
    assert any(while_writing)

    last = Run.start(root, tmp_path / "last")
    started_from.append(last_step())
    last.end()
    assert [step for step in last.steps(total) if 0 < step < started_from[-1]] == []
    assert outputs() == expected
    assert metrics()["steps"] == total
    assert list(Path(FOLDER).iterdir()) == []
    assert {path.name for path in ADAPTER.parent.iterdir()} == {"base", ADAPTER.name}


# where it is killed


@pytest.mark.parametrize(
    ("event", "step", "checkpoint"),
    [
        ("step", 1, 0),
        ("save", 2, 2),
        ("step", 3, 2),
        ("evaluate", 3, 2),  # the last step of the first epoch
        ("save", 4, 4),
        ("save", 6, 6),  # the last step of the second epoch
        ("epoch", 6, 6),
        ("step", 8, 6),
        ("save", 8, 8),
        ("end", 8, 8),
    ],
)
def test_a_kill_after_any_event_changes_no_byte(event: str, step: int, checkpoint: int, root: Path) -> None:
    steps = assert_resumes(sections(root, adapter=DROPOUT, **SMALL), event, step, checkpoint)
    assert steps == list(range(checkpoint + 1, 9))
