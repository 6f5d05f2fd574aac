"""tools.cli.hashes: the same bytes again, other bytes on a CPU that rounds differently, or other bytes that nothing excuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stages.outputs import ENVIRONMENT
from tools.cli.hashes import CHANGED, CPU, OTHER_CPU, REPRODUCED, compare, hashes, probe

LOCK = """
schema: '2.0'
stages:
  train:
    cmd: python -m stages.train
    outs:
    - path: models/adapter
      md5: {adapter}.dir
    - path: metrics/train.json
      md5: 22
  benchmark@onnx:
    cmd: python -m stages.benchmark onnx
    outs:
    - path: metrics/benchmark/onnx.json
      md5: {seconds}
"""


def run(folder: Path, *arguments: str, threads: int = 1) -> "subprocess.CompletedProcess[str]":
    number = str(threads)
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number}
    command = [sys.executable, "-m", "tools.cli.hashes", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    return probe()


@pytest.fixture
def project(tmp_path: Path, here: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's dvc.lock, and the probe of this CPU."""
    monkeypatch.chdir(tmp_path)
    CPU.parent.mkdir()
    CPU.write_text(json.dumps(here))
    Path("dvc.lock").write_text(LOCK.format(adapter="11", seconds="1"))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_the_probe_is_the_same_in_every_process_and_with_any_number_of_threads(
    threads: int, here: dict[str, str], root: Path
) -> None:
    done = run(root, "--probe", threads=threads)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == here


def test_the_committed_probe_has_the_kinds_of_this_one(here: dict[str, str], root: Path) -> None:
    committed = json.loads((root / CPU).read_text())
    assert committed.keys() == here.keys()
    assert committed["made_by"] == here["made_by"], "write it again, with dvc.lock"
    assert len(set(here.values())) == len(here)


def test_the_same_hashes_are_a_success_though_seconds_differ(project: Path) -> None:
    (project / "committed.lock").write_text(LOCK.format(adapter="11", seconds="2"))
    done = run(project, "--against", "committed.lock")
    assert (done.returncode, done.stdout) == (REPRODUCED, "the committed dvc.lock was reproduced to the byte\n")


@pytest.mark.slow
def test_other_hashes_on_a_cpu_that_rounds_the_same_are_a_failure_that_names_them(project: Path) -> None:
    (project / "committed.lock").write_text(LOCK.format(adapter="12", seconds="1"))
    done = run(project, "--against", "committed.lock")
    assert done.returncode == CHANGED
    assert done.stdout.splitlines()[0] == "other bytes than those of the committed dvc.lock: models/adapter"
    assert "this CPU rounds like the one that made it" in done.stdout


def test_other_hashes_on_a_cpu_that_rounds_differently_are_told_apart(
    project: Path, here: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    CPU.write_text(json.dumps(here | {"products": "another"}))
    made = hashes(Path("dvc.lock"))
    assert compare(made | {"models/adapter": "12.dir"}, made) == OTHER_CPU
    assert capsys.readouterr().out.splitlines()[1].endswith("that made the committed dvc.lock: products")


def test_a_probe_of_other_packages_excuses_nothing(
    project: Path, here: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    CPU.write_text(json.dumps(here | {"made_by": "torch 2.12.0, 0", "products": "another"}))
    assert compare({"models/adapter": "12.dir"}, hashes(Path("dvc.lock"))) == CHANGED
    assert capsys.readouterr().out.splitlines()[1].startswith(f"{CPU} was made with other packages")


def test_an_output_that_only_one_of_the_two_has_is_a_difference(project: Path) -> None:
    made = hashes(Path("dvc.lock"))
    assert compare(made | {"models/onnx": "5"}, made) == CHANGED
    assert compare({}, made) == CHANGED


def test_without_a_stored_probe_nothing_is_excused(project: Path) -> None:
    CPU.unlink()
    with pytest.raises(SystemExit, match=r"^\.ci/cpu\.json: not found; create it where dvc\.lock is made, with `python"):
        compare({}, hashes(Path("dvc.lock")))


def test_ci_takes_exactly_these_exit_codes(root: Path) -> None:
    script = (root / ".ci/run").read_text()
    assert f"\n  {REPRODUCED}) ;;" in script and f"\n  {OTHER_CPU})" in script and '\n  *) exit "$code"' in script
