"""search, with DVC: one search over int4 recipes, killed in the middle of a trial, then taken up again."""

import json
import re
import subprocess
import sys
import time

import psutil
import pytest
from omegaconf import OmegaConf

from tests.clone import Clone

pytestmark = pytest.mark.slow

SEARCH = """
space:
  build.algo_config: [null, no_such_method]
minimize: size_mb
constraints:
  size_mb: {max_share_of_default: 1.0}
  metrics/evaluate/onnx.json:invalid_rate: {max: 1}
overrides: [+experiment=smoke, train.max_steps=3, build=cpu_int4_k_quant_mixed] # larger than what is searched
"""
COMMAND = (sys.executable, "-m", "tools.search", "mine")
THREADS = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def project(smoke_run: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A project in which the smoke recipe has run, with a search and a choice in params.yaml, so that the tree is dirty."""
    project = smoke_run.copy(tmp_path_factory.mktemp("search") / "project")
    (project.folder / "conf/search/mine.yaml").write_text(SEARCH, encoding="utf-8")
    params = project.folder / "params.yaml"
    params.write_text(params.read_text(encoding="utf-8").replace("seed: 0", "seed: 5"), encoding="utf-8")
    return project


def state(project: Clone) -> list[str]:
    """What a search must leave alone."""
    commands = [("status", "--porcelain"), ("rev-parse", "--symbolic-full-name", "HEAD"), ("diff",), ("stash", "list")]
    return [project.run("git", *command) for command in commands]


def logs(project: Clone) -> dict[str, str]:
    """The output of each trial, by its experiment's name."""
    return {log.stem: log.read_text(encoding="utf-8") for log in (project.folder / ".search/mine/log").glob("*.log")}


def stages_of(text: str) -> list[str]:
    """The stages that a trial has run so far, by its output."""
    return re.findall(r"Running stage '([^']+)'", text)


def experiments(project: Clone) -> list[str]:
    return sorted(project.run("dvc", "exp", "list", "--name-only").split())


def test_what_is_not_committed_is_told_before_any_trial(project: Clone) -> None:
    stage = project.folder / "stages/report/stage.py"
    before = stage.read_text(encoding="utf-8")
    stage.write_text(before + "\n", encoding="utf-8")
    output = project.run(*COMMAND, code=1)
    stage.write_text(before, encoding="utf-8")
    assert output == "search: stages/report/stage.py: not committed, and trials run what is committed; commit or stash it\n"


@pytest.mark.timeout(1800)  # six runs of the graph
def test_a_search_goes_on_after_a_kill_and_its_winner_can_be_taken(project: Clone) -> None:
    before = state(project)
    killed = kill_in_a_build(project)
    assert state(project) == before
    finished = {name: text for name, text in logs(project).items() if name in experiments(project)}
    assert finished
    assert killed not in finished

    output = project.run(*COMMAND, environment=THREADS)
    assert state(project) == before
    assert logs(project).items() >= finished.items()  # a trial that runs again overwrites its output
    assert f"{killed} (" in output
    ran = [stage for text in logs(project).values() for stage in stages_of(text)]
    assert ran.count("train") == 1
    assert ran.count("evaluate@base") == 1  # on the validation rows; on the test rows it was evaluated before
    assert len(logs(project)) == 5
    assert re.search(r"\) failed: build: .*the builder refuses int4 for cpu", output)
    assert len(experiments(project)) == 4  # the default and one of the two; the winner and the default on the test rows

    winner = re.findall(r"Apply it: dvc exp apply (\S+)\n", output)[0]
    tested = output[output.index("On the test rows, which were not used for the choice:\n") :]
    assert tested.count("size_mb") == 2
    assert f"\n{winner} (build.algo_config=" in tested
    assert re.search(
        r"trials are scored on \d+ validation rows: .* set data.eval_dataset_size in overrides for more rows", output
    )
    on_test = stages_of(logs(project)[winner])
    assert {"evaluate@onnx", "compare"} <= set(on_test)
    assert not {"train", "merge", "build", "benchmark@merged", "benchmark@onnx"} & set(on_test)
    sizes = sizes_shown(project)
    assert sorted(sizes) == experiments(project)
    assert sizes[winner] == min(sizes.values())
    assert (project.folder / ".search/mine/pareto.svg").read_text(encoding="utf-8").count("<svg") == 1
    assert not (project.folder / ".search/mine/clone").exists()

    again = project.run(*COMMAND)
    assert "known" in again
    assert sentence(again) == sentence(output)

    chosen = re.findall(rf"{winner} \(build.algo_config=(\w+)\):", output)
    project.run("git", "checkout", "params.yaml")
    project.run("dvc", "exp", "apply", winner)
    assert {"null": None}.get(chosen[0], chosen[0]) == OmegaConf.load(project.folder / "params.yaml").build.algo_config
    assert OmegaConf.load(project.folder / "params.yaml").evaluate.split == "test"
    assert (project.folder / "models/onnx/genai_config.json").exists()


def kill_in_a_build(project: Clone) -> str:
    """Starts the search, kills it with all its children in the build of a trial after the default, and says in which."""
    process = subprocess.Popen(
        COMMAND, cwd=project.folder, env=project.environment | THREADS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    building: list[str] = []
    deadline = time.monotonic() + 900
    while process.poll() is None and not building and time.monotonic() < deadline:
        time.sleep(0.05)
        building = [name for name, text in logs(project).items() if stages_of(text) == ["build"]]
    assert building, "no trial after the default came to its build"
    family = psutil.Process(process.pid).children(recursive=True)
    for member in [psutil.Process(process.pid), *family]:
        member.kill()
    process.wait()
    psutil.wait_procs(family)
    return building[0]


def sizes_shown(project: Clone) -> dict[str, float]:
    """size_mb of each experiment that `dvc exp show` lists."""
    baselines = json.loads(project.run("dvc", "exp", "show", "--json"))
    rows = [row for baseline in baselines for row in baseline["experiments"] or []]
    summaries = {row["name"]: row["revs"][0]["data"]["metrics"]["metrics/summary.json"]["data"] for row in rows}
    return {name: float(summary["size_mb"]) for name, summary in summaries.items()}


def sentence(output: str) -> str:
    return output[output.index(" wins: ") :]
