"""Resumes a killed training from its last complete checkpoint.

DVC deletes a stage's outputs before it runs, so checkpoints are kept elsewhere: in .checkpoints/<key>/, where the key is
a hash of the parameters, the inputs' bytes, the code and the packages. A changed run never resumes from an old checkpoint,
and removes the checkpoints of all except the latest killed runs.
"""

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, get_last_checkpoint, rotate_checkpoints

from tunepress.core.files import remove, sha256

FOLDER = ".checkpoints"
PARTIAL = "partial"
PROJECT = ("stages", "tunepress")  # packages whose code affects the result of a training
KEPT = 4  # folders of killed runs with other keys: DVC's queue may have run several of them
PACKAGES = ("torch", "transformers", "accelerate", "peft", "bitsandbytes")


class ResumableTrainer(Trainer):
    """A Trainer whose output_dir has only complete checkpoints: the last one, and with load_best_model_at_end the best one."""

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        """Runs an epoch, or nothing if the checkpoint is the last one: transformers would train one more step."""
        control = self.state.stateful_callbacks.get("TrainerControl", {}).get("args", {})
        if self.state.global_step >= self.state.max_steps or control.get("should_training_stop"):
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*arguments, **options)

    def _init_training_state(self, *arguments: Any, **options: Any) -> tuple[int, int]:
        """Finds the best checkpoint again if the project has moved, or DVC's queue runs in a copy of it."""
        state: tuple[int, int] = super()._init_training_state(*arguments, **options)
        best = Path(self.args.output_dir) / f"checkpoint-{self.state.best_global_step}"
        self.state.best_model_checkpoint = str(best) if best.is_dir() else None
        return state

    def _determine_best_metric(self, *arguments: Any, **options: Any) -> bool:
        """Saves a checkpoint of the best evaluation, which could not be loaded at the end otherwise."""
        best: bool = super()._determine_best_metric(*arguments, **options)
        self.control.should_save |= best and self.args.load_best_model_at_end
        return best

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Writes a checkpoint to a temporary folder and renames it when every process has written its part."""
        complete = Path(self.args.output_dir)
        partial = complete / PARTIAL
        name = f"checkpoint-{self.state.global_step}"
        self.args.output_dir = str(partial)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.output_dir = str(complete)
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(complete / name)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self.state.save_to_json(str(partial / name / "trainer_state.json"))  # names the best checkpoint
            remove(complete / name)
            (partial / name).rename(complete / name)
            rotate_checkpoints(str(complete), save_total_limit=1, best_model_checkpoint=self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()


class LogAtCheckpoints(TrainerCallback):
    """Logs the loss at every step that can write a checkpoint and at the last one, so that no sum of losses is pending there.

    The Trainer does not save that sum in a checkpoint, so a resumed run would log another mean than an uninterrupted one.
    It does not repeat an evaluation at the end of an epoch either, so a checkpoint that is due just before waits for it.
    """

    save_later = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called after each step, after the Trainer's own callback that decides whether to save."""
        control.should_log |= control.should_save or control.should_evaluate or control.should_training_stop
        last = control.should_training_stop or (state.epoch or 0) % 1 == 0
        self.save_later = control.should_save and last and args.eval_strategy == IntervalStrategy.EPOCH
        control.should_save &= not self.save_later

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_save |= self.save_later
        control.should_log |= control.should_save or control.should_evaluate


def checkpoint_key(config: Any, inputs: list[Path]) -> str:
    """A hash of everything that the training depends on.

    Args:
        config: a dataclass of the stage's parameters.
        inputs: the files and folders that it reads.
    """
    digest = hashlib.sha256(json.dumps(asdict(config), default=str, sort_keys=True).encode())
    for path in inputs + code():
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file():
                digest.update(file.name.encode() + bytes.fromhex(sha256(file)))
    digest.update("".join(version(package) for package in PACKAGES).encode())
    digest.update(str(PartialState().num_processes).encode())  # of all machines
    digest.update(torch.cuda.get_device_name().encode() if torch.cuda.is_available() else b"cpu")
    return digest.hexdigest()[:20]


def code() -> list[Path]:
    """The files of this project's imported modules, including the one that runs as the program."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] in (*PROJECT, "__main__")]
    specs = [module.__spec__ for module in modules if module.__spec__]
    return sorted({Path(spec.origin) for spec in specs if spec.origin and spec.name.partition(".")[0] in PROJECT})


@contextmanager
def checkpoint_folder(key: str) -> Iterator[Path]:
    """Yields the folder for the checkpoints of a key; it is removed when the block succeeds, and kept when it does not.

    Two runs with the same key, as DVC's queue may start them, do not share it: the second gets a temporary folder.
    """
    root = project_root() / FOLDER
    root.mkdir(exist_ok=True)
    if PartialState().process_index:
        yield shared(None)
        return
    with ExitStack() as stack:
        name = key
        while not stack.enter_context(locked(root, name)):
            name = f"{key}.{token_hex(4)}"
        remove_abandoned(root, key)
        folder, done = root / name, root / f"{name}.done"
        if name != key:
            folder.mkdir()
            stack.callback(remove, folder)
        remove(folder / PARTIAL)
        remove(done)
        yield shared(folder)
        if folder.exists():
            folder.rename(done)  # so that a kill does not leave a checkpoint with missing files
            remove(done)


@contextmanager
def locked(root: Path, name: str) -> Iterator[bool]:
    """Yields whether this process has the lock of a checkpoint folder, which it then holds while the block runs."""
    path, acquired = root / f"{name}.lock", False
    with ExitStack() as stack:
        with suppress(BlockingIOError):
            while not acquired:  # another process may have removed the file after it was opened here
                file = stack.enter_context(path.open("w"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    acquired = os.path.samestat(os.fstat(file.fileno()), path.stat())
        if acquired:
            stack.callback(path.unlink)
        yield acquired


def remove_abandoned(root: Path, key: str) -> None:
    """Removes what runs with other keys have left, except the latest killed ones, which may be started again.

    Args:
        root: folder of all keys.
        key: the key of this run.
    """
    names = {path.name.removesuffix(".lock").removesuffix(".done") for path in root.iterdir()} - {key}
    killed = [name for name in names if "." not in name and (root / name).is_dir()]
    latest = sorted(killed, key=lambda name: modified(root / name), reverse=True)[:KEPT]
    for name in names.difference(latest):
        with locked(root, name) as acquired:
            if acquired:
                remove(root / name)
                remove(root / f"{name}.done")


def modified(path: Path) -> float:
    """The time of the last change of a folder; 0 if it no longer exists."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0


def shared(folder: Path | None) -> Path:
    """Shares the first process's folder with all processes."""
    folders = [folder]
    if PartialState().num_processes > 1:
        broadcast_object_list(folders)
    return Path(folders[0] or "")


def project_root() -> Path:
    """The folder that outlives the run: DVC's queue runs in copies below .dvc/tmp/exps, which it deletes."""
    folder = Path.cwd()
    outer = [parent for parent in folder.parents if folder.is_relative_to(parent / ".dvc/tmp/exps")]
    return outer[0] if outer else Path()


def last_checkpoint(folder: Path) -> str | None:
    """The checkpoint to resume from, if there is one."""
    return get_last_checkpoint(str(folder)) if folder.is_dir() else None
