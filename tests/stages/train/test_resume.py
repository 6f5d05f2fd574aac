"""Resuming: whenever a training is killed, the next one ends with the bytes of one that was left in peace."""

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

from stages.train import checkpoints
from stages.train import stage as train
from stages.train.checkpoints import FOLDER, PARTIAL
from stages.train.trainer import PaddingFreeTrainer
from tests.stages.params import write_params
from tests.stages.training import WEIGHTS, metrics, sections
from tunepress.core.files import read_jsonl, write_jsonl
from tunepress.core.paths import ADAPTER, LOSS_CURVES, METRICS, PREPARED
from tunepress.text.segments import learned

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
BEST: dict[str, Any] = {"load_best_model_at_end": True, "eval_steps": 2, "save_steps": 2, "num_train_epochs": 4}  # 16 steps
UNDISTURBED: dict[str, dict[str, bytes]] = {}  # by sections


class KilledError(Exception):
    """Ends a training where nothing expects an end."""


@dataclass
class Watch(TrainerCallback):
    """Notes the steps of a training and kills it after an event at one of them."""

    event: str = ""
    step: int = 0
    steps: list[int] = field(default_factory=list)

    def output(self, event: str, state: TrainerState) -> None:
        if (event, state.global_step) == (self.event, self.step):
            raise KilledError

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.steps.append(state.global_step)
        self.output("step", state)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.output("save", state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.output("evaluate", state)

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.output("epoch", state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.output("end", state)


@pytest.fixture(autouse=True)
def project_as_it_was(inside: Path) -> Iterator[None]:
    yield
    (inside / "params.yaml").unlink(missing_ok=True)


def train_watched(cfg: train.Config, event: str = "", step: int = 0) -> list[int]:
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
    """All that a training writes, except its seconds."""
    files = [*ADAPTER.iterdir(), *LOSS_CURVES.rglob("*.tsv"), METRICS / "train.json"]
    return {str(path): path.read_bytes() for path in sorted(files)}


def undisturbed(cfg: train.Config) -> dict[str, bytes]:
    """What a training writes that is left in peace; nothing of it stays."""
    if repr(cfg) not in UNDISTURBED:
        train.main(cfg)
        UNDISTURBED[repr(cfg)] = outputs()
        forget()
    return UNDISTURBED[repr(cfg)]


def forget() -> None:
    """Removes what a training has written, as DVC does before it runs the stage again."""
    for made in (ADAPTER, METRICS):
        shutil.rmtree(made, ignore_errors=True)


def last_step() -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    return max((int(path.name.rpartition("-")[2]) for path in Path(FOLDER).glob("*/checkpoint-*")), default=0)


def assert_resumes(cfg: train.Config, event: str, step: int, checkpoint: int) -> list[int]:
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


AHEAD = """# python runs this at its start: seconds of imports, and a wait for the run before it to be killed
import os, sys
import tunepress, bitsandbytes, datasets, dvclive, peft, transformers
sys.stdin.readline() or os._exit(1)
"""


@dataclass
class Run:
    """A training in a process of its own, whose checkpoints can be waited for."""

    process: subprocess.Popen[str]
    complaints: Path

    @classmethod
    def prepare(cls, root: Path, complaints: Path) -> "Run":
        """Starts `python -m stages.train`, which imports and waits for `go`."""
        ahead = complaints.with_suffix(".imports") / "sitecustomize.py"
        ahead.parent.mkdir()
        ahead.write_text(AHEAD)
        environment = os.environ | {"PYTHONPATH": f"{ahead.parent}:{root}", "OMP_NUM_THREADS": "1"}
        streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        with complaints.open("w") as stream:
            command = [sys.executable, "-m", "stages.train"]
            return cls(subprocess.Popen(command, env=environment, stderr=stream, text=True, **streams), complaints)

    def go(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.close()

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


@pytest.mark.slow
def test_ten_kills_in_a_row_at_random_moments_change_no_byte(root: Path, tmp_path: Path) -> None:
    total, apart = 240, 4
    settings: dict[str, Any] = {"num_train_epochs": 80, "save_steps": apart, "logging_steps": 5, "eval_steps": 7}
    batches = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}  # 8 batches an epoch: steps of 3, 3, 2
    cfg = sections(root, adapter=DROPOUT, **batches, **settings)
    write_params(cfg)
    begun = time.monotonic()
    expected = undisturbed(cfg)
    pace = (time.monotonic() - begun) / total  # seconds a step
    chance = random.Random(7)

    while_writing, started_from, ahead = [], [], Run.prepare(root, tmp_path / "run 0")
    for kill in range(10):
        run, ahead = ahead, Run.prepare(root, tmp_path / f"run {kill + 1}")
        started_from.append(last_step())
        run.go()
        awaited = started_from[-1] + apart * chance.randint(1, 4)
        run.wait_for(lambda least=awaited: last_step() >= least)  # type: ignore[misc]
        if kill % 2:
            run.wait_for(writing)
        else:
            time.sleep(chance.random() * apart * pace)
        run.kill()
        while_writing.append(writing())
        assert [step for step in run.steps(total) if 0 < step < started_from[-1]] == []
        assert not ADAPTER.exists()
    assert started_from == sorted(set(started_from))
    assert any(while_writing)

    started_from.append(last_step())
    ahead.go()
    ahead.end()
    assert [step for step in ahead.steps(total) if 0 < step < started_from[-1]] == []
    assert outputs() == expected
    assert metrics()["steps"] == total
    assert list(Path(FOLDER).iterdir()) == []
    assert {path.name for path in ADAPTER.parent.iterdir()} == {"base", ADAPTER.name}


# where it is killed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("event", "step", "checkpoint"),
    [
        ("step", 1, 0),
        ("save", 2, 2),
        ("step", 3, 2),
        ("evaluate", 3, 2),  # the last step of the first epoch
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


@pytest.mark.parametrize("written", [0, 2, 3])
def test_a_kill_while_the_outputs_are_written_changes_no_byte(written: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = sections(root, adapter=DROPOUT, **SMALL)
    expected = undisturbed(cfg)
    with monkeypatch.context() as patched:
        for name in ("adapters.save", "write_loss_curves", "write_json", "size_mb")[written : written + 1]:
            patched.setattr(train.adapters if "." in name else train, name.rpartition(".")[2], killed)
        with pytest.raises(KilledError):
            train.main(cfg)
    forget()
    if written < 3:
        assert last_step() == 8
        assert train_watched(cfg) == []
    else:
        train.main(cfg)  # the checkpoints had gone
    assert outputs() == expected


def killed(*arguments: Any, **options: Any) -> None:
    raise KilledError


@pytest.mark.parametrize("spared", [0, 2])
def test_a_kill_while_the_checkpoints_are_removed_changes_no_byte(
    spared: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = sections(root, adapter=DROPOUT, **SMALL)
    expected = undisturbed(cfg)
    remove = checkpoints.remove

    def remove_in_part(path: Path) -> None:
        """Deletes all files of the finished training's folder but one in five."""
        if path.name == PARTIAL or not path.exists() or not ADAPTER.exists():
            remove(path)
            return
        for number, file in enumerate(sorted(file for file in path.rglob("*") if file.is_file())):
            if number % 5 != spared:
                file.unlink()
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "remove", remove_in_part)
        with pytest.raises(KilledError):
            train.main(cfg)
    assert any(path.is_file() for path in Path(FOLDER).rglob("*"))
    forget()
    train.main(cfg)
    assert outputs() == expected
    assert list(Path(FOLDER).iterdir()) == []


def test_several_kills_in_one_epoch_change_no_byte(root: Path) -> None:
    cfg = sections(root, adapter=DROPOUT, **SMALL | {"save_steps": 1})
    expected = undisturbed(cfg)
    steps = [train_watched(cfg, "save", step) for step in range(1, 6)]
    assert steps == [[step] for step in range(1, 6)]
    assert train_watched(cfg) == [6, 7, 8]
    assert outputs() == expected


# what is being trained


@pytest.mark.slow
@pytest.mark.parametrize(
    "adapter",
    [
        {"method": "dora"},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"method": "qlora"},
        {"method": "qlora", "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": False, "init_lora_weights": "loftq"},
    ],
    ids=str,
)
def test_every_kind_of_adapter_resumes(adapter: dict[str, Any], root: Path) -> None:
    steps = assert_resumes(sections(root, adapter=DROPOUT | adapter, **SMALL), "step", 5, 4)
    assert steps == [5, 6, 7, 8]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"train_sampling_strategy": "group_by_length"},
        {"lr_scheduler_type": "cosine", "warmup_steps": 3},
        {"lr_scheduler_type": "reduce_lr_on_plateau"},
        {"gradient_checkpointing": True},
        {"max_steps": 7},
        {"eval_strategy": "no"},
        {"logging_steps": 100},
        {"logging_steps": 0.3, "eval_steps": 0.4, "save_steps": 0.25},  # 3, 4 and 2 of 8 steps
    ],
    ids=str,
)
def test_other_settings_resume(settings: dict[str, Any], root: Path) -> None:
    assert_resumes(sections(root, adapter=DROPOUT, **SMALL | settings), "step", 5, 4)


@pytest.mark.slow
def test_checkpoints_can_stand_at_the_ends_of_epochs(root: Path) -> None:
    cfg = sections(root, adapter=DROPOUT, **SMALL | {"save_strategy": "epoch"})
    assert assert_resumes(cfg, "step", 2, 0) == list(range(1, 9))
    assert assert_resumes(cfg, "save", 3, 3) == [4, 5, 6, 7, 8]
    assert assert_resumes(cfg, "step", 7, 6) == [7, 8]
    assert assert_resumes(cfg, "end", 8, 8) == []


@pytest.mark.slow
@pytest.mark.parametrize(("step", "checkpoint"), [(3, 3), (4, 3), (8, 8)])
def test_evaluations_at_the_ends_of_epochs_are_not_lost(step: int, checkpoint: int, root: Path) -> None:
    cfg = sections(root, adapter=DROPOUT, **SMALL | {"eval_strategy": "epoch", "save_steps": 3})
    assert_resumes(cfg, "save" if step == checkpoint else "step", step, checkpoint)


def test_without_checkpoints_a_training_begins_anew(root: Path) -> None:
    cfg = sections(root, adapter=DROPOUT, **SMALL | {"save_strategy": "no"})
    assert assert_resumes(cfg, "step", 7, 0) == list(range(1, 9))


# the best checkpoint


class BestAtFour(PaddingFreeTrainer):
    """Takes the fourth step for the best one."""

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        actual = {"eval_loss": 1.0 + abs(self.state.global_step - 4)}
        self.log(actual)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, actual)
        return actual


@pytest.fixture
def best_at_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "PaddingFreeTrainer", BestAtFour)


def four_steps_of(cfg: train.Config) -> bytes:
    """The weights of a training that ends at the fourth step, all else the same."""
    cut = OmegaConf.structured(cfg)
    cut.train.update(max_steps=4, load_best_model_at_end=False, early_stopping_patience=None)
    cut = OmegaConf.to_object(cut)
    assert isinstance(cut, train.Config)
    return undisturbed(cut)[str(WEIGHTS)]


@pytest.mark.parametrize("step", [2, 4, 6, 16])
def test_the_best_adapter_is_kept_over_a_kill(step: int, root: Path, best_at_four: None) -> None:
    cfg = sections(root, adapter=DROPOUT, **BEST, lr_scheduler_type="constant")
    assert_resumes(cfg, "save", step, step)
    assert metrics() | {"steps": 16, "best_step": 4, "eval_loss": 1.0} == metrics()
    assert WEIGHTS.read_bytes() == four_steps_of(cfg)


@pytest.mark.parametrize(("step", "checkpoint"), [(3, 0), (7, 4), (16, 16)])
def test_the_best_evaluation_between_two_checkpoints_has_one_too(
    step: int, checkpoint: int, root: Path, best_at_four: None
) -> None:
    cfg = sections(root, adapter=DROPOUT, **BEST | {"eval_steps": 4, "save_steps": 16}, lr_scheduler_type="constant")
    assert_resumes(cfg, "save" if step == checkpoint else "step", step, checkpoint)
    assert metrics()["best_step"] == 4
    assert WEIGHTS.read_bytes() == four_steps_of(cfg)


@pytest.mark.parametrize("event", ["save", "end"])
@pytest.mark.parametrize(("strategy", "stop"), [("steps", 8), ("epoch", 12)])
def test_a_training_that_has_stopped_early_does_not_go_on(
    event: str, strategy: str, stop: int, root: Path, best_at_four: None
) -> None:
    often = {"eval_strategy": strategy, "save_strategy": strategy, "early_stopping_patience": 2}
    assert assert_resumes(sections(root, adapter=DROPOUT, **BEST | often), event, stop, stop) == []
    assert metrics() | {"steps": stop, "best_step": 4} == metrics()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "save_steps", "kill", "checkpoint", "stop"),
    [("steps", 2, 6, 6, 8), ("steps", 2, 7, 6, 8), ("steps", 16, 7, 4, 8), ("steps", 16, 8, 4, 8), ("epoch", 2, 11, 8, 12)],
)
def test_patience_outlasts_a_kill(
    strategy: str, save_steps: int, kill: int, checkpoint: int, stop: int, root: Path, best_at_four: None
) -> None:
    often = {"eval_strategy": strategy, "save_strategy": strategy, "save_steps": save_steps, "early_stopping_patience": 2}
    cfg = sections(root, adapter=DROPOUT, **BEST | often)
    assert assert_resumes(cfg, "step", kill, checkpoint if kill != checkpoint else checkpoint - 2)[-1] == stop
    assert metrics() | {"steps": stop, "best_step": 4} == metrics()


@pytest.mark.slow
@pytest.mark.parametrize("queued_first", [False, True])
def test_a_training_goes_on_in_the_queue_or_out_of_it(
    queued_first: bool, root: Path, project: Path, monkeypatch: pytest.MonkeyPatch, best_at_four: None
) -> None:
    cfg = sections(root, adapter=DROPOUT, **BEST)
    expected = undisturbed(cfg)
    queued = project / ".dvc/tmp/exps/tmp1"  # DVC's queue works in such copies
    for name in ("data", "models"):
        shutil.copytree(project / name, queued / name, symlinks=True)
    try:
        for folder, step in zip([queued, project] if queued_first else [project, queued], (12, 0), strict=True):
            monkeypatch.chdir(folder)
            steps = train_watched(cfg, "save" if step else "", step)
        assert steps == [13, 14, 15, 16]
        assert outputs() == expected
    finally:
        monkeypatch.chdir(project)
        shutil.rmtree(queued)
    assert list(Path(FOLDER).iterdir()) == []


# what a checkpoint belongs to


@pytest.mark.parametrize(
    "changed",
    [{"learning_rate": 2e-3}, {"seed": 1}, {"adapter": {"r": 3} | DROPOUT}],
    ids=str,
)
def test_changed_parameters_begin_anew_and_the_old_ones_still_resume(changed: dict[str, Any], root: Path) -> None:
    values: dict[str, Any] = {"adapter": DROPOUT} | SMALL
    expected = undisturbed(sections(root, **values))
    train_watched(sections(root, **values), "step", 5)
    other = sections(root, **values | changed)
    assert train_watched(other)[:2] == [1, 2]
    actual = outputs()
    assert last_step() == 4
    forget()
    assert train_watched(sections(root, **values)) == [5, 6, 7, 8]
    assert outputs() == expected
    assert actual[str(WEIGHTS)] != expected[str(WEIGHTS)]


def test_changed_rows_begin_anew(root: Path) -> None:
    cfg = sections(root, adapter=DROPOUT, **SMALL)
    train_watched(cfg, "step", 5)
    path = PREPARED / "train.jsonl"
    rows = read_jsonl(path)
    try:
        write_jsonl(path, [*rows[:-1], rows[-1] | {"segments": [rows[-1]["segments"][0], learned("fear", "fear")]}])
        assert train_watched(cfg)[0] == 1
    finally:
        write_jsonl(path, rows)
    assert train_watched(cfg)[0] == 5


# other files that may be there


def test_half_a_checkpoint_that_was_being_written_does_no_harm(root: Path) -> None:
    cfg = sections(root, adapter=DROPOUT, **SMALL)
    expected = undisturbed(cfg)
    train_watched(cfg, "step", 5)
    (folder,) = Path(FOLDER).iterdir()
    shutil.copytree(folder / "checkpoint-4", folder / PARTIAL / "checkpoint-6")
    for file in (folder / PARTIAL / "checkpoint-6").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert train_watched(cfg) == [5, 6, 7, 8]
    assert outputs() == expected
    assert list(Path(FOLDER).iterdir()) == []


def test_an_older_checkpoint_that_was_being_removed_does_no_harm(root: Path) -> None:
    cfg = sections(root, adapter=DROPOUT, **SMALL)
    expected = undisturbed(cfg)
    train_watched(cfg, "step", 5)
    (folder,) = Path(FOLDER).iterdir()
    shutil.copytree(folder / "checkpoint-4", folder / "checkpoint-2")
    for file in list((folder / "checkpoint-2").iterdir())[::2]:
        file.unlink()
    assert train_watched(cfg) == [5, 6, 7, 8]
    assert outputs() == expected


def test_a_refused_or_failed_start_leaves_the_checkpoints(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = sections(root, adapter=DROPOUT, **SMALL)
    expected = undisturbed(cfg)
    train_watched(cfg, "step", 5)
    with monkeypatch.context() as patched:
        patched.setattr(train, "load_base", killed)
        with pytest.raises(KilledError):
            train.main(cfg)
    assert last_step() == 4
    assert train_watched(cfg) == [5, 6, 7, 8]
    assert outputs() == expected
