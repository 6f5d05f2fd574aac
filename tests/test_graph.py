"""The graph as DVC sees it: one clone, the smoke recipe, and which stages run after which change."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.clone import SMOKE, Clone

pytestmark = pytest.mark.slow

MEASURED = ["evaluate@merged", "evaluate@onnx", "compare", "benchmark@merged", "benchmark@onnx", "report", "gate"]
AFTER_PREPARE = ["train", "merge", "build", *MEASURED]


@pytest.fixture(scope="module")
def clone(smoke_run: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the smoke recipe has run and is committed."""
    return smoke_run.copy(tmp_path_factory.mktemp("graph") / "clone")


def test_a_second_repro_runs_nothing(clone: Clone) -> None:
    assert clone.ran("dvc", "repro") == []
    assert clone.run("git", "status", "--porcelain") == ""


def test_a_change_of_evaluation_reruns_only_what_is_measured_on_the_rows(clone: Clone) -> None:
    ran = clone.ran("dvc", "exp", "run", *SMOKE, "-S", "evaluate.confidence_level=0.9")
    assert ran == ["evaluate@base", "evaluate@merged", "evaluate@onnx", "baselines", "report"]


def test_an_edited_module_reruns_only_the_stages_that_import_it(clone: Clone) -> None:
    clone.restore()
    edit(clone.folder / "stages/report/tables.py")
    assert clone.ran("dvc", "repro") == ["report"]  # and not gate: it writes the same summary
    clone.restore()
    edit(clone.folder / "stages/evaluate/stage.py")
    assert clone.ran("dvc", "repro", "--dry") == ["evaluate@base", "evaluate@merged", "evaluate@onnx"]
    clone.restore()


def edit(module: Path) -> None:
    module.write_text(module.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")


def test_an_experiment_that_ran_before_is_restored(clone: Clone) -> None:
    clone.restore()
    assert clone.ran("dvc", "exp", "run", *SMOKE, "-S", "evaluate.confidence_level=0.9", "--name", "again") == []


def test_an_edited_row_reruns_everything_after_prepare(clone: Clone) -> None:
    clone.restore()
    held_out = json.loads((clone.folder / "data/prepared/test.jsonl").read_text(encoding="utf-8").splitlines()[0])
    number = int(held_out["source"].rsplit(" ", 1)[1])
    raw = clone.folder / "data/raw/tone.jsonl"
    lines = raw.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[number - 1] = json.dumps({"phrase": "What a thoroughly unforeseen sentence!", "tone": "surprise"}) + "\n"
    raw.write_text("".join(lines), encoding="utf-8")
    assert clone.ran("dvc", "repro", "prepare") == ["prepare"]  # and not fetch
    rest = clone.ran("dvc", "repro", "--dry")
    assert {"train", "evaluate@base", "evaluate@merged", "evaluate@onnx", "report"} <= set(rest)


def test_a_bad_row_fails_in_one_line_and_the_last_good_outputs_come_back(clone: Clone) -> None:
    clone.restore()
    before = (clone.folder / "data/prepared/train.jsonl").read_bytes()
    with (clone.folder / "data/raw/tone.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"phrase": "no tone"\n')
    output = clone.run("dvc", "repro", code=255)
    assert re.search(r"^prepare: data/raw/tone.jsonl line \d+: not JSON", output, flags=re.MULTILINE)
    assert "Traceback" not in output
    clone.run("git", "checkout", "--quiet", ".")
    clone.run("dvc", "checkout", "--quiet")  # what `make repro` does after a failure
    assert (clone.folder / "data/prepared/train.jsonl").read_bytes() == before


def test_a_forced_run_with_more_threads_gives_the_same_bytes_and_a_clean_tree(clone: Clone) -> None:
    before = clone.outputs()
    threads = {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    ran = clone.ran("dvc", "repro", "--force", "evaluate@onnx", environment=threads)
    assert ran == ["fetch", "prepare", "train", "merge", "build", "evaluate@onnx"]
    assert clone.outputs() == before
    changed = {line[3:] for line in clone.run("git", "status", "--porcelain").splitlines()}
    assert changed <= {"dvc.lock", "metrics/speed.json"}


def test_a_broken_bound_fails_repro_behind_the_report(clone: Clone) -> None:
    clone.restore()
    params = clone.folder / "params.yaml"
    params.write_text(params.read_text(encoding="utf-8").replace("max_size_mb: null", "max_size_mb: 0.01"), encoding="utf-8")
    shutil.rmtree(clone.folder / "report")
    output = clone.run("dvc", "repro", code=255)
    assert re.search(r"^gate: gate\.max_size_mb: [\d.]+ is [\d.]+ over the bound of 0\.01$", output, flags=re.MULTILINE)
    assert (clone.folder / "report/index.html").exists()
    assert json.loads((clone.folder / "metrics/summary.json").read_text(encoding="utf-8"))["gate"].startswith("max_size_mb ")


def test_an_experiment_with_a_broken_bound_is_kept_and_told_again_where_it_is_taken_over(clone: Clone) -> None:
    clone.restore()
    output = clone.run("dvc", "exp", "run", *SMOKE, "--name", "too-large", "-S", "gate.max_size_mb=0.02")
    assert "gate: not passed: gate.max_size_mb" in output
    clone.restore()
    clone.run("dvc", "exp", "apply", "too-large")
    assert "over the bound of 0.02" in clone.run(sys.executable, "-m", "tools.cli.results", code=1)


def test_a_wrong_type_or_key_fails_before_any_stage(clone: Clone) -> None:
    for override in ("train.learning_rate=fast", "+train.learning_rat=1e-3", "base_model=gpt_5"):
        output = clone.run("dvc", "exp", "run", "-S", override, code=255)
        assert "Running stage" not in output
        assert override.split("=")[0].lstrip("+").split(".")[-1] in output


def test_queued_experiments_run_on_two_workers(clone: Clone) -> None:
    clone.run("git", "checkout", "--quiet", ".")
    clone.run("dvc", "exp", "run", "--queue", *SMOKE, "-S", "report.title=first,second")
    # to a terminal and not a pipe: DVC's workers inherit it and would keep it open for as long as they live
    subprocess.run(
        ["dvc", "queue", "start", "--jobs", "2"],
        cwd=clone.folder,
        env=clone.environment | {"OMP_NUM_THREADS": "1"},  # two runs on two cores wait for each other's spinning threads
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    deadline = time.monotonic() + 400
    while (status := clone.run("dvc", "queue", "status")).count("Success") < 2 and time.monotonic() < deadline:
        time.sleep(2)
    clone.run("dvc", "queue", "stop", "--kill")
    assert status.count("Success") == 2, status


def test_experiments_fit_a_terminal_and_can_be_compared(clone: Clone) -> None:
    shown = clone.run("make", "--no-print-directory", "exp-show", f"VENV={Path(sys.executable).parent.parent}")
    assert "report.title=second" in shown
    assert max(len(line) for line in shown.splitlines()) <= 120
    experiment = clone.run("dvc", "exp", "list", "--name-only").split()[0]
    assert "metrics/summary.json" in clone.run("dvc", "metrics", "diff", "--all", "HEAD", experiment)
    page = clone.run("dvc", "plots", "show").strip().removeprefix("file://")
    html = Path(page).read_text(encoding="utf-8")
    assert "Confusion, onnx" in html
    assert "loss.tsv" in html


def test_experiments_in_and_out_of_an_image_are_told_apart(clone: Clone) -> None:
    clone.restore()
    image = {"TUNEPRESS_IMAGE": "tunepress-train:cpu@sha256:" + "0123456789abcdef" * 4}
    clone.run("dvc", "exp", "run", *SMOKE, "--name", "inside", "-S", "report.title=third", environment=image)
    shown = clone.run("make", "--no-print-directory", "exp-show", f"VENV={Path(sys.executable).parent.parent}")
    named = [line for line in shown.splitlines() if "image=tunepress-train:cpu@0123456789ab" in line]
    assert any("inside" in line for line in named)
    assert not any("title=second" in line or "main" in line for line in named)


def test_a_run_killed_while_it_trains_goes_on_from_its_checkpoint_and_never_evaluates_the_base_again(clone: Clone) -> None:
    clone.run("git", "checkout", "--quiet", ".")
    command = ["dvc", "exp", "run", *SMOKE, "-S", "train.max_steps=150", "-S", "train.save_steps=10"]
    run = subprocess.Popen(
        command,
        cwd=clone.folder,
        env=clone.environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    checkpoints = clone.folder / ".checkpoints"
    while run.poll() is None and not list(checkpoints.glob("*/checkpoint-*")):
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not (clone.folder / "models/adapter").exists()
    output = clone.run(*command, environment={"OMP_NUM_THREADS": "1"})
    assert re.findall(r"Running stage '([^']+)'", output) == AFTER_PREPARE
    started = re.findall(r"train: .*?(\d+)/150", output)
    assert int(started[0]) > 0  # where the progress bar began
    assert list(checkpoints.iterdir()) == []
    weights = clone.folder / "models/adapter/adapter_model.safetensors"
    resumed = weights.read_bytes()
    clone.run(sys.executable, "-m", "stages.train", environment={"OMP_NUM_THREADS": "1"})
    assert weights.read_bytes() == resumed
