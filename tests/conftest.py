"""Fixtures that several test modules share. What needs torch is imported in the fixture: many tests do without."""

import functools
import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunepress  # noqa: F401  (pins the float kernels before torch is imported)
from tests.clone import SMOKE, Clone

ROOT = Path(__file__).resolve().parent.parent
LONGEST = (
    "tests/test_graph.py",
    "tests/docker/test_podman.py",
    "tests/stages/train/test_processes.py",
    "tests/tools/search/test_trials.py",
    "tests/tools/olive/test_run.py",
    "tests/azure/test_job_runs.py",
    "tests/stages/train/test_resume.py",
    "tests/azure/test_jobs.py",
)
SLOW_FIXTURES = {"azurite", "browser", "measured"}


@pytest.hookimpl(trylast=True)  # after pytest has left out what -m leaves out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, so that no process is left alone with one at the end."""
    longest = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: longest.get(item.nodeid.partition("::")[0], len(longest)))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks as slow what needs Azurite, a browser or a run of a benchmark."""
    if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Spares accelerate, which collects garbage at each training, all that is imported: half a second."""
    gc.freeze()


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def smoke_run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the smoke recipe has run and is committed, to be copied. pytest's processes make it once together."""
    import fcntl

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / "smoke.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = folder / "smoke"
        if not complete.exists():
            shutil.rmtree(folder / "smoke.partial", ignore_errors=True)  # what failed in another process
            clone = Clone.of(root, folder / "smoke.partial/clone")
            clone.run("dvc", "exp", "run", *SMOKE)
            clone.commit()
            clone.folder.parent.rename(complete)
    return Clone(complete / "clone")


@pytest.fixture(scope="session")
def tiny_phi3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a random two-layer Phi-3, fused qkv_proj and gate_up_proj included."""
    from omegaconf import OmegaConf

    from stages.fetch.stage import fetch
    from tunepress.config.base_model import BaseModel

    chosen = OmegaConf.merge(OmegaConf.structured(BaseModel), OmegaConf.load(ROOT / "conf/base_model/tiny.yaml"))
    folder = tmp_path_factory.mktemp("tiny") / "base"
    base_model = OmegaConf.to_object(chosen)
    assert isinstance(base_model, BaseModel)
    fetch(base_model, 0, folder)
    return folder


@pytest.fixture(scope="module")
def project(tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with a base model and prepared rows."""
    from tests.stages.training import TONES, new_project, row
    from tunepress.core.files import write_jsonl
    from tunepress.text.packing import Corpus
    from tunepress.text.prompt import Prompt

    folder = tmp_path_factory.mktemp("train")
    prepared = new_project(folder, tiny_phi3)
    Prompt("Text: {phrase}\nTone: ", "{tone}", TONES, source_max_len=100, max_new_tokens=9).save(prepared)
    Corpus(pad_to_max_len=None, use_attention_mask=True).save(prepared)
    for name, count in (("train", 16), ("validation", 6)):
        write_jsonl(prepared / f"{name}.jsonl", [row(number, name) for number in range(count)])
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Two threads only get in each other's way on a model this small; nor does its training need a good estimate or card."""
    import jinja2
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.train.estimate.SECONDS", 0.01)  # 0.25 s of each training
        patch.setattr(jinja2, "Template", functools.cache(jinja2.Template))  # peft compiles one for each checkpoint
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def inside(project: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project as the working folder, without what an earlier test has made."""
    import torch

    from stages.train.checkpoints import FOLDER
    from tunepress.core.paths import ADAPTER, METRICS

    monkeypatch.chdir(project)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield project
    torch.set_num_threads(1)
    for made in (ADAPTER, METRICS, Path(FOLDER)):
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="session")
def good_model(tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int4 model for CPU."""
    from tests.stages.built import built
    from tests.stages.recipes import recipe

    return built(recipe(), tiny_phi3, tmp_path_factory.mktemp("good") / "onnx")


@pytest.fixture
def folder(good_model: Path, tmp_path: Path) -> Path:
    """The same to break."""
    shutil.copytree(good_model, tmp_path / "onnx")
    return tmp_path / "onnx"
