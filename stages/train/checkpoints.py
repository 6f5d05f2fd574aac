"""Resuming after a kill: whole checkpoints only, found by what the training depends on.

DVC deletes a stage's outputs before it runs, so checkpoints lie outside them, in .checkpoints/<key>/, where the key is
a hash of the parameters, the inputs' bytes, the code and the packages: a changed run never picks up an old checkpoint,
and removes those of all but the latest killed runs.
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
PROJECT = ("stages", "tunepress")  # packages whose code decides what a training gives
KEPT = 4  # folders of killed runs of other keys: DVC's queue may have had several of them
PACKAGES = ("torch", "transformers", "accelerate", "peft", "bitsandbytes")


class ResumableTrainer(Trainer):
    """A Trainer whose output_dir holds whole checkpoints: the last one, and the best where that is wanted."""

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        """Runs an epoch, or nothing if the checkpoint was the last one: transformers would train one more step."""
        control = self.state.stateful_callbacks.get("TrainerControl", {}).get("args", {})
        if self.state.global_step >= self.state.max_steps or control.get("should_training_stop"):
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*arguments, **options)

    def _init_training_state(self, *arguments: Any, **options: Any) -> tuple[int, int]:
        """Finds the best checkpoint again where the project has moved, or DVC's queue now works in a copy of it."""
        begun: tuple[int, int] = super()._init_training_state(*arguments, **options)
        best = Path(self.args.output_dir) / f"checkpoint-{self.state.best_global_step}"
        self.state.best_model_checkpoint = str(best) if best.is_dir() else None
        return begun

    def _determine_best_metric(self, *arguments: Any, **options: Any) -> bool:
        """Has a checkpoint written of the best evaluation, which otherwise could not be loaded at the end."""
        best: bool = super()._determine_best_metric(*arguments, **options)
        self.control.should_save |= best and self.args.load_best_model_at_end
        return best

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Writes a checkpoint beside its place and renames it when every process has written its part."""
        whole = Path(self.args.output_dir)
        partial = whole / PARTIAL
        name = f"checkpoint-{self.state.global_step}"
        self.args.output_dir = str(partial)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.output_dir = str(whole)
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(whole / name)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self.state.save_to_json(str(partial / name / "trainer_state.json"))  # names the best checkpoint
            remove(whole / name)
            (partial / name).rename(whole / name)
            rotate_checkpoints(str(whole), save_total_limit=1, best_model_checkpoint=self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()


class LogAtCheckpoints(TrainerCallback):
    """Has the loss logged where a checkpoint can be written and at the last step, so that no sum of losses is under way there.

    The Trainer doesn't keep that sum in a checkpoint; a resumed run would log another mean than an undisturbed one.
    Nor does it make up for an evaluation at the end of an epoch; a checkpoint that is due just before waits for it.
    """

    save_later = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called after each step, behind the Trainer's own callback that decides on saving."""
        control.should_log |= control.should_save or control.should_evaluate or control.should_training_stop
        last = control.should_training_stop or (state.epoch or 0) % 1 == 0
        self.save_later = control.should_save and last and args.eval_strategy == IntervalStrategy.EPOCH
        control.should_save &= not self.save_later

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called after each epoch."""
        control.should_save |= self.save_later
        control.should_log |= control.should_save or control.should_evaluate


def checkpoint_key(sections: Any, inputs: list[Path]) -> str:
    """A hash of all that the training depends on.

    Args:
        sections: a dataclass of the stage's parameters.
        inputs: files and folders that it reads.
    """
    digest = hashlib.sha256(json.dumps(asdict(sections), default=str, sort_keys=True).encode())
    for path in inputs + code():
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file():
                digest.update(file.name.encode() + bytes.fromhex(sha256(file)))
    digest.update("".join(version(package) for package in PACKAGES).encode())
    digest.update(str(PartialState().num_processes).encode())  # of all machines
    digest.update(torch.cuda.get_device_name().encode() if torch.cuda.is_available() else b"cpu")
    return digest.hexdigest()[:20]


def code() -> list[Path]:
    """The files of this project's modules, of the one that runs as the program too."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] in (*PROJECT, "__main__")]
    specs = [module.__spec__ for module in modules if module.__spec__]
    return sorted({Path(spec.origin) for spec in specs if spec.origin and spec.name.partition(".")[0] in PROJECT})


@contextmanager
def checkpoint_folder(named: str) -> Iterator[Path]:
    """Yields the folder of the checkpoints of one key; it goes when the block ends well, and stays when it doesn't.

    Two runs of the same key (DVC's queue starts such) don't share it: the second has a folder of its own for the while.
    """
    root = project_root() / FOLDER
    root.mkdir(exist_ok=True)
    if PartialState().process_index:
        yield shared(None)
        return
    with ExitStack() as held:
        name = named
        while not held.enter_context(locked(root, name)):
            name = f"{named}.{token_hex(4)}"
        remove_abandoned(root, named)
        folder, done = root / name, root / f"{name}.done"
        if name != named:
            folder.mkdir()
            held.callback(remove, folder)
        remove(folder / PARTIAL)
        remove(done)
        yield shared(folder)
        if folder.exists():
            folder.rename(done)  # a kill leaves no checkpoint without some of its files
            remove(done)


@contextmanager
def locked(root: Path, name: str) -> Iterator[bool]:
    """Yields whether this process holds the lock of a folder of checkpoints, and so no other does while the block runs."""
    path, mine = root / f"{name}.lock", False
    with ExitStack() as held:
        with suppress(BlockingIOError):
            while not mine:  # another process may have removed the file after it was opened here
                file = held.enter_context(path.open("w"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    mine = os.path.samestat(os.fstat(file.fileno()), path.stat())
        if mine:
            held.callback(path.unlink)
        yield mine


def remove_abandoned(root: Path, named: str) -> None:
    """Removes what runs of other keys have left, except for the latest killed ones, which may be started again.

    Args:
        root: folder of all keys.
        named: the key of this run.
    """
    names = {path.name.removesuffix(".lock").removesuffix(".done") for path in root.iterdir()} - {named}
    killed = [name for name in names if "." not in name and (root / name).is_dir()]
    latest = sorted(killed, key=lambda name: modified(root / name), reverse=True)[:KEPT]
    for name in names.difference(latest):
        with locked(root, name) as mine:
            if mine:
                remove(root / name)
                remove(root / f"{name}.done")


def modified(path: Path) -> float:
    """When a folder was changed, 0 where it has gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0


def shared(folder: Path | None) -> Path:
    """The first process's folder, in all processes."""
    first = [folder]
    if PartialState().num_processes > 1:
        broadcast_object_list(first)
    return Path(first[0] or "")


def project_root() -> Path:
    """The folder that outlives the run: DVC's queue works in copies below .dvc/tmp/exps, which it throws away."""
    here = Path.cwd()
    outer = [parent for parent in here.parents if here.is_relative_to(parent / ".dvc/tmp/exps")]
    return outer[0] if outer else Path()


def last_checkpoint(folder: Path) -> str | None:
    """The checkpoint to go on from, if there is one."""
    return get_last_checkpoint(str(folder)) if folder.is_dir() else None
