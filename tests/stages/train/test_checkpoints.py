"""checkpoints: a key of the contents that a training depends on, and a folder for it that one run at a time has."""

import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from stages.train import checkpoints
from stages.train.checkpoints import FOLDER, KEPT, PARTIAL, checkpoint_folder, checkpoint_key, last_checkpoint, locked
from tests.conftest import ROOT


@dataclass
class Inner:
    """A section of parameters."""

    rate: float = 0.1
    names: list[str] = field(default_factory=lambda: ["a", "b"])


@dataclass
class Outer:
    """Some parameters."""

    inner: Inner = field(default_factory=Inner)
    seed: int = 0


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A file and a folder, in the project that is the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("rows").write_bytes(b"1234")
    Path("base/inner").mkdir(parents=True)
    Path("base/config").write_bytes(b"c")
    Path("base/inner/weights").write_bytes(bytes(100))
    return [Path("rows"), Path("base")]


# the key


def test_the_same_contents_have_the_same_key_whenever_and_wherever_they_were_written(inputs: list[Path]) -> None:
    first = checkpoint_key(Outer(), inputs)
    for file in (Path("rows"), Path("base/inner/weights")):
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
        os.utime(file, (1, 1))
    assert checkpoint_key(Outer(), inputs) == first
    Path("base").rename("elsewhere")
    Path("base").symlink_to("elsewhere")
    assert checkpoint_key(Outer(), inputs) == first
    assert checkpoint_key(Outer(), [path.resolve() for path in inputs]) == first


def test_each_change_of_a_parameter_changes_the_key(inputs: list[Path]) -> None:
    others = [Outer(seed=1), Outer(Inner(rate=0.1000001)), Outer(Inner(names=["b", "a"])), Outer(Inner(names=["ab"]))]
    assert len({checkpoint_key(sections, inputs) for sections in [Outer(), *others]}) == 5
    assert checkpoint_key(replace(others[0], seed=0), inputs) == checkpoint_key(Outer(), inputs)


@pytest.mark.parametrize("changed", ["rows", "base/config", "base/inner/weights"])
def test_one_changed_byte_of_an_input_changes_the_key(changed: str, inputs: list[Path]) -> None:
    first = checkpoint_key(Outer(), inputs)
    path, times = Path(changed), Path(changed).stat()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # DVC and git set such times
    assert checkpoint_key(Outer(), inputs) != first


def test_a_new_a_missing_and_a_renamed_file_change_the_key(inputs: list[Path]) -> None:
    actual = [checkpoint_key(Outer(), inputs)]
    Path("base/new").touch()
    actual.append(checkpoint_key(Outer(), inputs))
    Path("base/new").rename("base/renamed")
    actual.append(checkpoint_key(Outer(), inputs))
    Path("base/config").unlink()
    actual.append(checkpoint_key(Outer(), inputs))
    assert len(set(actual)) == 4


def test_a_package_of_another_version_changes_the_key(inputs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, version = checkpoint_key(Outer(), inputs), checkpoints.version
    monkeypatch.setattr(checkpoints, "version", lambda name: "9.9" if name == "peft" else version(name))
    assert checkpoint_key(Outer(), inputs) != first


def test_a_gpu_of_another_name_changes_the_key(inputs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    actual = {checkpoint_key(Outer(), inputs)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("H100", "H200"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        actual.add(checkpoint_key(Outer(), inputs))
    assert len(actual) == 3


@pytest.mark.parametrize("runs_as", ["stages.invented", "tunepress.invented", "__main__"])
def test_changed_code_changes_the_key_and_that_of_the_program_too(
    runs_as: str, inputs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path("invented.py")
    source.write_text("one = 1")
    module: Any = ModuleType(runs_as)
    module.__spec__ = ModuleSpec("stages.invented" if runs_as == "__main__" else runs_as, loader=None, origin=str(source))
    monkeypatch.setitem(sys.modules, runs_as, module)
    first = checkpoint_key(Outer(), inputs)
    source.write_text("one = 2")
    assert checkpoint_key(Outer(), inputs) != first


# the folder


def test_a_folder_is_kept_after_an_error_and_goes_after_a_good_end(inputs: list[Path]) -> None:
    with pytest.raises(RuntimeError), checkpoint_folder("some") as folder:
        (folder / "checkpoint-3").mkdir(parents=True)
        raise RuntimeError
    assert folder == Path(FOLDER, "some")
    assert (folder / "checkpoint-3").is_dir()
    with checkpoint_folder("some") as folder:
        assert last_checkpoint(folder) == str(folder / "checkpoint-3")
    assert list(Path(FOLDER).iterdir()) == []


def test_a_training_without_checkpoints_leaves_nothing(inputs: list[Path]) -> None:
    with checkpoint_folder("some") as folder:
        assert last_checkpoint(folder) is None
    assert list(Path(FOLDER).iterdir()) == []


def test_the_last_checkpoint_is_that_of_the_most_steps_and_never_a_partial_one(inputs: list[Path]) -> None:
    folder = Path(FOLDER, "some")
    for name in ("checkpoint-9", "checkpoint-10", f"{PARTIAL}/checkpoint-11"):
        (folder / name).mkdir(parents=True)
    with checkpoint_folder("some"):
        assert last_checkpoint(folder) == str(folder / "checkpoint-10")
        assert not (folder / PARTIAL).exists()


def test_keys_do_not_meet(inputs: list[Path]) -> None:
    with checkpoint_folder("some") as some, checkpoint_folder("other") as other:
        assert [some.name, other.name] == ["some", "other"]
        for folder in (some, other):
            (folder / "checkpoint-1").mkdir(parents=True)
    assert list(Path(FOLDER).iterdir()) == []


def test_a_second_run_of_the_same_key_has_a_folder_of_its_own_for_the_while(inputs: list[Path]) -> None:
    with checkpoint_folder("some") as first:
        (first / PARTIAL).mkdir(parents=True)
        (first / "checkpoint-1").mkdir()
        with checkpoint_folder("some") as second:
            assert second != first
            assert last_checkpoint(second) is None
            (second / "checkpoint-2").mkdir()
        assert not second.exists()
        with pytest.raises(RuntimeError), checkpoint_folder("some"):
            raise RuntimeError
        assert {path.name for path in first.iterdir()} == {PARTIAL, "checkpoint-1"}
        with checkpoint_folder("some") as third:
            assert third != first  # the first still has its own
    assert list(Path(FOLDER).iterdir()) == []


@pytest.mark.slow
def test_a_killed_process_gives_its_folder_back(inputs: list[Path]) -> None:
    killed = """
import os, signal
from stages.train.checkpoints import checkpoint_folder
with checkpoint_folder("some") as folder:
    (folder / "checkpoint-5").mkdir(parents=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", killed], env=environment, timeout=120).returncode == -9
    assert Path(FOLDER, "some.lock").exists()
    with checkpoint_folder("some") as folder:
        assert last_checkpoint(folder) == str(folder / "checkpoint-5")
    assert list(Path(FOLDER).iterdir()) == []


def test_a_kill_while_the_folder_is_removed_leaves_no_checkpoint(inputs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    remove = checkpoints.remove

    def killed_where_there_is_much_to_remove(path: Path) -> None:
        if path.exists():
            raise KeyboardInterrupt
        remove(path)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "remove", killed_where_there_is_much_to_remove)
        with pytest.raises(KeyboardInterrupt), checkpoint_folder("some") as folder:
            (folder / "checkpoint-1").mkdir(parents=True)
    assert list(Path(FOLDER).iterdir()) != []
    with checkpoint_folder("some") as folder:
        assert last_checkpoint(folder) is None
    assert list(Path(FOLDER).iterdir()) == []


def killed_run(name: str, seconds: int) -> Path:
    """The folder that a killed run of another key has left."""
    folder = Path(FOLDER, name)
    (folder / "checkpoint-1").mkdir(parents=True)
    Path(FOLDER, f"{name}.lock").touch()
    os.utime(folder, (seconds, seconds))
    return folder


def test_of_other_killed_runs_the_latest_stay(inputs: list[Path]) -> None:
    folders = [killed_run(name, seconds) for seconds, name in enumerate("fbeadcg", 1)]
    with checkpoint_folder("b") as own:
        assert own == folders[1]  # the second oldest, and its own
        assert [folder.exists() for folder in folders] == [False, True, False, *[True] * KEPT]
        assert {path.name for path in Path(FOLDER).iterdir()} >= {f"{folder.name}.lock" for folder in folders[-KEPT:]}
    assert [folder.exists() for folder in folders] == [False, False, False, *[True] * KEPT]


def test_what_another_run_holds_stays_however_old_it_is(inputs: list[Path]) -> None:
    with checkpoint_folder("old") as old:
        (old / "checkpoint-1").mkdir(parents=True)
        os.utime(old, (1, 1))
        with checkpoint_folder("old") as second:  # of the same key, in a folder of its own
            os.utime(second, (1, 1))
            others = [killed_run(f"key{number}", 100 + number) for number in range(KEPT + 1)]
            with checkpoint_folder("new"):
                assert (old / "checkpoint-1").is_dir()
                assert second.is_dir()
            assert [folder.exists() for folder in others] == [False] + [True] * KEPT
        assert not second.exists()
    assert not old.exists()


def test_what_nobody_can_resume_goes(inputs: list[Path]) -> None:
    Path(FOLDER).mkdir()
    for name in ("gone.done", "second.0123abcd"):
        (Path(FOLDER) / name / "checkpoint-1").mkdir(parents=True)
    for name in ("gone.lock", "second.0123abcd.lock", "nothing.lock"):
        (Path(FOLDER) / name).touch()
    with checkpoint_folder("some"):
        assert [path.name for path in Path(FOLDER).iterdir()] == ["some.lock"]
    assert list(Path(FOLDER).iterdir()) == []


def test_a_lock_that_was_removed_after_it_was_opened_is_not_held(inputs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    Path(FOLDER).mkdir()
    flock, opened = checkpoints.fcntl.flock, []

    def late(file: Any, operation: int) -> None:
        opened.append(file)
        if len(opened) == 1:  # the run before ends between the two calls
            Path(FOLDER, "some.lock").unlink()
        flock(file, operation)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.fcntl, "flock", late)
        with locked(Path(FOLDER), "some") as mine:
            assert mine
            assert len(opened) == 2
            with locked(Path(FOLDER), "some") as again:
                assert not again
    assert list(Path(FOLDER).iterdir()) == []


def test_dvcs_copies_of_the_project_share_the_folder_of_the_project(inputs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    project = Path.cwd()
    with pytest.raises(RuntimeError), checkpoint_folder("some") as folder:
        (folder / "checkpoint-1").mkdir(parents=True)
        raise RuntimeError
    for copy in (".dvc/tmp/exps/tmp123", ".dvc/tmp/exps/standalone/tmp456"):
        (project / copy).mkdir(parents=True)
        monkeypatch.chdir(project / copy)
        with pytest.raises(RuntimeError), checkpoint_folder("some") as folder:
            assert last_checkpoint(folder) == str(project / FOLDER / "some/checkpoint-1")
            raise RuntimeError
        assert not Path(FOLDER).exists()


def test_another_folder_called_exps_is_a_project_of_its_own(inputs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("tmp/exps/mine").mkdir(parents=True)
    monkeypatch.chdir("tmp/exps/mine")
    with checkpoint_folder("some"):
        assert Path(FOLDER).is_dir()
