"""adapter: one model in a folder, and the files of several adapters beside it."""

import subprocess
from pathlib import Path

import pytest

from stages.build.adapters.export import add_adapter_inputs
from stages.build.adapters.lora import load
from stages.build.stage import build
from tests.command import run_module
from tests.stages.random_adapter import write_random_adapter
from tests.stages.recipes import recipe


@pytest.fixture(scope="module")
def project(tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two adapters, and a model with the first one's file."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("first", "second")):
        write_random_adapter(tiny_phi3, folder / name, seed=seed)
    build(recipe(block_size=32, accuracy_level=4), tiny_phi3, folder / "onnx")
    add_adapter_inputs(load(folder / "first"), folder / "onnx/model.onnx", folder / "onnx/first.onnx_adapter")
    return folder


def run(project: Path, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_module("tools.cli.adapter", *(str(project / argument) for argument in arguments), folder=root)


def test_the_file_is_the_one_that_a_build_writes(project: Path, root: Path) -> None:
    done = run(project, root, "first", "onnx/again.onnx_adapter")
    assert done.returncode == 0, done.stderr
    assert (project / "onnx/again.onnx_adapter").read_bytes() == (project / "onnx/first.onnx_adapter").read_bytes()
    assert run(project, root, "second", "onnx/second.onnx_adapter").returncode == 0
    assert (project / "onnx/second.onnx_adapter").read_bytes() != (project / "onnx/first.onnx_adapter").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("first", "nowhere/a.onnx_adapter"), "nowhere: model.onnx not found; run `make repro`"),
        (
            ("third", "onnx/third.onnx_adapter"),
            "third/adapter_config.json: not found, so there is no adapter; name its folder",
        ),
    ],
)
def test_what_is_not_there_is_told_in_one_line(arguments: tuple[str, str], message: str, project: Path, root: Path) -> None:
    done = run(project, root, *arguments)
    assert done.returncode == 1
    assert done.stderr == f"adapter: {project}/{message}\n"
    assert not (project / arguments[1]).exists()
