"""The key of a training's checkpoints: every package, the processes and this project's code, and no order of parameters."""

import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from stages.train import checkpoints
from stages.train.checkpoints import checkpoint_key, code
from tests.conftest import ROOT


@dataclass
class Some:
    """Parameters."""

    seed: int = 0


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """A file that is read."""
    (tmp_path / "rows").write_bytes(b"1234")
    return [tmp_path / "rows"]


@pytest.mark.parametrize("package", ["torch", "transformers", "accelerate", "peft", "bitsandbytes"])
def test_each_package_that_computes_is_in_the_key(package: str, inputs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, version = checkpoint_key(Some(), inputs), checkpoints.version
    monkeypatch.setattr(checkpoints, "version", lambda name: f"{version(name)}.post1" if name == package else version(name))
    assert checkpoint_key(Some(), inputs) != first


def test_another_number_of_processes_changes_the_key(inputs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = checkpoint_key(Some(), inputs)
    monkeypatch.setattr(checkpoints, "PartialState", lambda: SimpleNamespace(num_processes=2))
    assert checkpoint_key(Some(), inputs) != first


def test_the_order_of_a_dictionarys_parameters_is_not_in_the_key(inputs: list[Path]) -> None:
    @dataclass
    class Free:
        """Parameters that are passed on, and one that JSON has no form for."""

        options: dict[str, Any]
        folder: Path = Path("some")

    first = checkpoint_key(Free({"a": 1, "b": 2}), inputs)
    assert checkpoint_key(Free({"b": 2, "a": 1}), inputs) == first
    assert checkpoint_key(Free({"a": 1, "b": 2}, Path("other")), inputs) != first


def test_the_code_of_the_key_is_this_projects_alone(inputs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    files = code()
    assert files == sorted(set(files))
    assert {ROOT / "stages/__init__.py", ROOT / "stages/train/checkpoints.py", ROOT / "tunepress/core/files.py"} <= set(files)
    assert {file.relative_to(ROOT).parts[0] for file in files} == {"stages", "tunepress"}
    for name in ("elsewhere", "stages_of_another", "__main__"):
        module: Any = ModuleType(name)
        module.__spec__ = ModuleSpec(name if name != "__main__" else "pytest.__main__", loader=None, origin="elsewhere.py")
        monkeypatch.setitem(sys.modules, name, module)
    assert code() == files
    bare: Any = ModuleType("stages.bare")  # `python -c` and namespace packages leave these
    bare.__spec__ = None
    monkeypatch.setitem(sys.modules, "stages.bare", bare)
    spread: Any = ModuleType("stages.spread")
    spread.__spec__ = ModuleSpec("stages.spread", loader=None, origin=None)
    monkeypatch.setitem(sys.modules, "stages.spread", spread)
    assert code() == files
