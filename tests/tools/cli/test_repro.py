"""`make repro`: one run at a time, and restored outputs after a failure. The stages are two small ones."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.clone import Clone, heed_interrupts
from tests.stages.run_files import new_run

VENV = Path(sys.executable).parent.parent
MAKE = ("make", "--no-print-directory", "--assume-old", f"{VENV}/.cpu", "repro", f"VENV={VENV}")
DVC_YAML = """stages:
  train:
    cmd: python -m toy train
    deps: [toy.py]
    params: [train.learning_rate]
    outs: [models/adapter]
    metrics:
      - metrics/toy.json
  merge:
    cmd: python -m toy merge
    deps: [toy.py, models/adapter]
    outs: [models/merged]
"""
TOY = """import os, sys, time
from pathlib import Path
import yaml
from tunepress.core.lock import stage_lock
from tunepress.core.files import atomic_output, write_json

name, marks = sys.argv[1], Path(os.environ["MARKS"])
with stage_lock(name):
    if (marks / f"fail-{name}").exists():
        sys.exit(f"{name}: no luck")
    params = yaml.safe_load(open("params.yaml"))
    rate = params["train"]["learning_rate"] if name == "train" else Path("models/adapter/rate").read_text()
    with atomic_output(Path("models") / {"train": "adapter", "merge": "merged"}[name]) as partial:
        partial.mkdir()
        (partial / "rate").write_text(str(rate))
    if name == "train":
        write_json(Path("metrics/toy.json"), {"rate": rate})
    (marks / f"written-{name}").touch()
    while (marks / f"hold-{name}").exists():
        time.sleep(0.02)
"""
STAGES = ("train", "merge")


class Project(Clone):
    """A project of the two stages; files in `marks` tell them to wait or to fail."""

    @property
    def marks(self) -> Path:
        return Path(self.environment["MARKS"])

    def choose(self, rate: str) -> None:
        path = self.folder / "conf/train/default.yaml"
        text = re.sub(r"(?m)^learning_rate: \S+", f"learning_rate: {rate}", path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")

    def rates(self) -> list[str]:
        """What the outputs hold."""
        files = ("models/adapter/rate", "models/merged/rate")
        return [(self.folder / file).read_text(encoding="utf-8") for file in files if (self.folder / file).exists()]

    def state(self) -> dict[str, str]:
        """Every file of the tree, except git's and DVC's own."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        names = {path.relative_to(self.folder).as_posix(): path for path in files}
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in names.items()
            if not name.startswith((".git/", ".dvc/"))
        }

    def start(self, *command: str, hold: str) -> subprocess.Popen[bytes]:
        """Starts a run and waits until one of its stages has written its output; the stage goes on when `release` is called."""
        for stage in STAGES:
            (self.marks / f"written-{stage}").unlink(missing_ok=True)
        (self.marks / f"hold-{hold}").touch()
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=(self.marks / "log").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )
        deadline = time.monotonic() + 120
        while process.poll() is None and not (self.marks / f"written-{hold}").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (self.marks / f"written-{hold}").exists(), (self.marks / "log").read_text(encoding="utf-8")
        return process

    def release(self) -> None:
        for stage in STAGES:
            (self.marks / f"hold-{stage}").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which all has run once and is committed."""
    folder = tmp_path_factory.mktemp("repro")
    project = Project.of(root, folder / "project")
    assert isinstance(project, Project)
    (folder / "marks").mkdir()
    project.environment["MARKS"] = str(folder / "marks")
    (project.folder / "dvc.lock").unlink()
    (project.folder / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    (project.folder / "toy.py").write_text(TOY, encoding="utf-8")
    new_run(folder / "run")  # the toy stages measure nothing that the table at the end of `make repro` could show
    shutil.copytree(folder / "run/metrics", project.folder / "metrics", dirs_exist_ok=True)
    project.choose("0.25")
    project.run(*MAKE)
    project.commit()
    return project


@pytest.fixture
def project(made: Project) -> Iterator[Project]:
    shutil.rmtree(made.folder / ".dvc/cache/runs", ignore_errors=True)  # every run is to run its stages
    yield made
    made.release()
    for mark in made.marks.glob("fail-*"):
        mark.unlink()
    made.restore()
    assert made.rates() == ["0.25", "0.25"]


SECOND = [
    pytest.param(MAKE, "train", 2, r"repro: another run is using this folder \(process \d+, ", id="make repro, train"),
    pytest.param(MAKE, "merge", 2, r"repro: another run is using this folder \(process \d+, ", id="make repro, merge"),
    pytest.param(("dvc", "repro"), "merge", 255, "is busy, it is being blocked by", id="dvc repro"),
    pytest.param(("dvc", "exp", "run"), "merge", 255, "'workspace' is busy", id="dvc exp run"),
    pytest.param(("dvc", "exp", "run", "--queue"), "merge", 255, "'workspace' is busy", id="dvc exp run --queue"),
    pytest.param(
        (sys.executable, "-m", "stages.merge"), "merge", 1, r"merge: merge \(process \d+\) is running in this", id="by hand"
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("second", "stage", "code", "pattern"), SECOND)
def test_a_second_run_changes_nothing(second: tuple[str, ...], stage: str, code: int, pattern: str, project: Project) -> None:
    project.choose("0.5")
    first = project.start(*MAKE, hold=stage)
    project.choose("0.75")
    before = project.state()
    assert re.search(pattern, project.run(*second, code=code))
    assert project.state() == before
    project.release()
    assert first.wait(120) == 0
    assert project.rates() == ["0.5", "0.5"]
    assert "up to date" in project.run("dvc", "status")


@pytest.mark.slow
@pytest.mark.parametrize("first_command", [("dvc", "repro"), ("dvc", "exp", "run")], ids=" ".join)
def test_a_run_that_was_started_without_make_is_left_alone_too(first_command: tuple[str, ...], project: Project) -> None:
    project.choose("0.5")
    project.run(sys.executable, "-m", "tools.cli.params")
    first = project.start(*first_command, hold="merge")
    project.choose("0.75")
    before = project.state()
    assert re.search(r"repro: merge \(process \d+\) is running in this folder; wait until it ends", project.run(*MAKE, code=2))
    assert project.state() == before
    project.release()
    assert first.wait(120) == 0
    assert project.rates() == ["0.5", "0.5"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_failure_brings_back_the_last_good_outputs(stage: str, project: Project) -> None:
    project.choose("0.5")
    (project.marks / f"fail-{stage}").touch()
    output = project.run(*MAKE, code=2)
    assert f"{stage}: no luck" in output
    assert "Traceback" not in output
    trained = "0.25" if stage == "train" else "0.5"
    assert project.rates() == [trained, "0.25"]
    assert (project.folder / "metrics/toy.json").read_text(encoding="utf-8") == f'{{\n  "rate": {trained}\n}}\n'
    assert not (project.folder / ".metrics.partial").exists()


@pytest.mark.slow
def test_an_interrupted_run_brings_back_the_last_good_outputs(project: Project) -> None:
    project.choose("0.5")
    first = project.start(*MAKE, hold="train")
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait(120) != 0
    assert project.rates() == ["0.25", "0.25"]
    assert (project.folder / "metrics/toy.json").exists()


@pytest.mark.slow
def test_a_killed_run_leaves_no_lock_and_its_stage_is_waited_for(project: Project) -> None:
    project.choose("0.5")
    first = project.start(*MAKE, hold="train")
    family = [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]
    stage = next(process for process in family if "toy" in process.cmdline())
    for process in family:
        if process != stage:
            process.kill()
    first.wait(30)
    # a process counts as running, and DVC's lock as held, until the init process has reaped it
    psutil.wait_procs([process for process in family if process != stage], 120)
    before = project.state()
    assert f"repro: train (process {stage.pid}) is running in this folder; wait until it ends" in project.run(*MAKE, code=2)
    assert project.state() == before
    project.release()
    psutil.wait_procs([stage], 60)
    project.run(*MAKE)
    assert project.rates() == ["0.5", "0.5"]


def test_conf_that_does_not_compose_is_one_line_and_runs_nothing(project: Project) -> None:
    (project.folder / "conf/train/default.yaml").write_text("learning_rate: [\n", encoding="utf-8")
    before = project.state()
    output = project.run(*MAKE, code=2)
    assert output.startswith("repro: conf/train/default.yaml line 2: not YAML")
    assert output.count("\n") == 2  # and make's own line
    assert project.state() == before
