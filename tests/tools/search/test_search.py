"""search: what is wrong in conf/search/ is one line, every recipe is proposed once, and the verdict is the right one."""

import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from tools.cli.params import compose
from tools.search.clone import Clone, reason
from tools.search.metrics import Limit, limits, numbers, resolution
from tools.search.report import plot, sentence, spread, table
from tools.search.report import tested_lines as lines_of_test_rows
from tools.search.schema import Bound, Sampler, Search, load
from tools.search.space import Range, overrides_of, text_of
from tools.search.trials import Proposals
from tools.search.verdict import Trial, Verdict, judge
from tunepress.core.errors import InputError
from tunepress.core.lock import file_lock

SPACE = "space: {build.block_size: [32, 64]}\n"
GOAL = "minimize: size_mb\n"


@pytest.fixture
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with conf/."""
    shutil.copytree(root / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(project: Path, text: str) -> Search:
    (project / "conf/search/mine.yaml").write_text(text, encoding="utf-8")
    return load("mine")


# conf/search/*.yaml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("spac: {a: [1]}\n", "unknown key spac; did you mean space?"),
        ("space: [a\n", "line 2: not YAML"),
        ("[]\n", "must be a mapping of keys to values, got a list"),
        (GOAL, "space has no value"),
        (GOAL + "space: {}\n", "space is empty"),
        (SPACE, "set either minimize or maximize"),
        (SPACE + GOAL + "maximize: accuracy\n", "set either minimize or maximize"),
        (GOAL + "space: {build.block_siz: [32]}\n", "unknown key build.block_siz; did you mean build.block_size?"),
        (GOAL + "space: {tarin.bf16: [true]}\n", "did you mean train?"),
        (GOAL + "space: {build.block_size: [32, large]}\n", "space.build.block_size: Value 'large'"),
        (GOAL + "space: {build.block_size: 32}\n", "space.build.block_size: must be a list of values, or low and high"),
        (GOAL + "space: {adapter: [lora, lorra]}\n", "space.adapter: adapter must be one of dora, file, hub, loftq, lora"),
        (GOAL + "space: {adapter.r: {low: 4, hihg: 8}}\n", "did you mean space.adapter.r.high?"),
        (GOAL + "space: {adapter.r: {low: 4}}\n", "space.adapter.r.high has no value"),
        (GOAL + "space: {adapter.r: {low: 8, high: 4, step: 1}}\n", "space.adapter.r: "),
        (GOAL + "space: {train.learning_rate: {low: 0.0, high: 1.0, log: true}}\nsampler: tpe\n", "space.train.learning_rate: "),
        (GOAL + "space: {train.learning_rate: {low: 0.1, high: 1.0}}\n", "a grid needs a list of values, or low, high and step"),
        (SPACE + GOAL + "sampler: tpo\n", "expected one of [grid, random, tpe]"),
        (SPACE + GOAL + "sampler: tpe\n", "n_trials has no value"),
        (SPACE + GOAL + "overrides: [evaluate.split=test]\n", "evaluate.split must not be set"),
        (GOAL + "space: {evaluate.split: [test, validation]}\n", "evaluate.split must not be set"),
        (SPACE + GOAL + "n_trials: 0\n", "n_trials must be at least 1"),
        (SPACE + GOAL + "constraints: {size_mb: {}}\n", "constraints.size_mb: no limit; set one of max, min"),
        (SPACE + GOAL + "constraints: {size_mb: {mx: 1}}\n", "did you mean constraints.size_mb.max?"),
        (SPACE + GOAL + "constraints: {size_mb: {max: small}}\n", "constraints.size_mb.max: Value 'small'"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file_and_the_key(text: str, expected: str, project: Path) -> None:
    with pytest.raises(InputError) as raised:
        written(project, text)
    message = str(raised.value)
    assert message.startswith("conf/search/mine.yaml")
    assert expected in message
    assert "\n" not in message


def test_a_search_that_is_not_there_comes_with_those_that_are(project: Path) -> None:
    with pytest.raises(InputError, match="must be one of adapter, int4"):
        load("int8")


@pytest.mark.parametrize("name", ["int4", "adapter"])
def test_the_searches_that_come_with_the_project_are_right(name: str, project: Path) -> None:
    search = load(name)
    assert len(list(Proposals(search, "0" * 40, project / "log").space)) == len(search.space)


def test_searches_are_no_part_of_params_yaml(project: Path) -> None:
    assert "search" not in OmegaConf.create(compose())


# the space


@pytest.mark.parametrize(
    "value",
    ["k_quant", "", "null", "true", "32", "1e-3", "last_matmul:int8,mixed_layers:int8", "/lm_head/MatMul", "it's \\", "é {x}"],
)
def test_any_text_reaches_params_yaml_as_it_is(value: str, project: Path) -> None:
    composed: Any = OmegaConf.create(compose(overrides_of({"report.title": text_of(value)})))
    assert composed["report"]["title"] == value


def test_lists_nulls_numbers_and_groups_are_choices(project: Path) -> None:
    chosen = {"adapter": "dora", "adapter.target_modules": text_of(["q_proj", "k_proj"]), "build.block_size": "null"}
    composed: Any = OmegaConf.create(compose(overrides_of(chosen | {"train.learning_rate": 3.1e-5, "adapter.r": 8})))
    assert composed["adapter"]["method"] == "dora"
    assert composed["adapter"]["target_modules"] == ["q_proj", "k_proj"]
    assert composed["build"]["block_size"] is None
    assert composed["train"]["learning_rate"] == 3.1e-5
    assert composed["adapter"]["r"] == 8


def test_a_range_with_a_step_has_both_its_ends() -> None:
    assert Range(4, 16, step=4).texts() == ["4", "8", "12", "16"]
    assert Range(0.1, 0.3, step=0.1).texts() == ["0.1", "0.2", "0.3"]


# proposals


def proposed(search: Search, journal: Path, count: int, fail: bool = False) -> list[dict[str, Any]]:
    """The choices of up to `count` more trials; each proposal comes from a process of its own, as it were."""
    choices = []
    for _ in range(count):
        proposals = Proposals(search, "c" * 40, journal)
        proposal = proposals.next()
        if proposal is None:
            break
        choices.append(dict(proposal.params))
        name = f"trial-{proposal.number}"
        trial = Trial(name, proposal.params, reason="no") if fail else Trial(name, proposal.params, {"size": proposal.number})
        proposals.tell(proposal, trial, [Limit("size", 1, 5.0)])
    return choices


def made(sampler: Sampler, n_trials: int | None, **space: Any) -> Search:
    return Search(space, minimize="size", sampler=sampler, n_trials=n_trials, seed=3)


GRID = {"build.block_size": [16, 32, 64], "build.algo_config": [None, "rtn"], "adapter.r": {"low": 4, "high": 8, "step": 4}}


@pytest.mark.parametrize("fail", [False, True])
def test_a_grid_has_every_combination_once(fail: bool, project: Path) -> None:
    search = made(Sampler.grid, None, **GRID)
    combinations = proposed(search, project / "log", 100, fail)
    assert len(combinations) == 12
    assert {(c["build.block_size"], c["build.algo_config"], c["adapter.r"]) for c in combinations} == {
        (size, algo, r) for size in ("16", "32", "64") for algo in ("null", "rtn") for r in ("4", "8")
    }


def test_more_trials_go_on_with_the_same_study(project: Path) -> None:
    first = proposed(made(Sampler.grid, 4, **GRID), project / "log", 100)
    rest = proposed(made(Sampler.grid, None, **GRID), project / "log", 100)
    assert len(first) == 4
    assert len({tuple(sorted(choices.items())) for choices in first + rest}) == 12


@pytest.mark.parametrize("sampler", [Sampler.random, Sampler.tpe])
def test_an_interrupted_search_proposes_what_an_undisturbed_one_does(sampler: Sampler, project: Path) -> None:
    space = {
        "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "adapter.r": {"low": 4, "high": 64},
        "adapter": ["lora"],
    }
    search = made(sampler, 14, **space)
    whole = proposed(search, project / "whole", 100)
    parts = proposed(search, project / "parts", 5)
    killed = Proposals(search, "c" * 40, project / "parts").next()  # and nothing is told
    assert killed is not None
    parts += proposed(search, project / "parts", 100)
    assert parts == whole
    assert dict(killed.params) == whole[5]
    assert len({choices["train.learning_rate"] for choices in whole}) == 14
    assert all(1e-4 <= choices["train.learning_rate"] <= 1e-2 and isinstance(choices["adapter.r"], int) for choices in whole)


def test_what_was_told_comes_back_and_another_commit_starts_again(project: Path) -> None:
    search = made(Sampler.grid, 2, **GRID)
    proposed(search, project / "log", 1)
    proposed(search, project / "log", 1, fail=True)
    trials = Proposals(search, "c" * 40, project / "log").trials()
    assert [(trial.name, trial.metrics, trial.reason) for trial in trials] == [
        ("trial-0", {"size": 0}, ""),
        ("trial-1", {}, "no"),
    ]
    assert Proposals(search, "d" * 40, project / "log").trials() == []


def test_tpe_is_told_which_trials_break_a_constraint(project: Path) -> None:
    search = made(Sampler.random, 8, **{"train.learning_rate": {"low": 0.1, "high": 1.0}})
    proposed(search, project / "log", 8)
    study = Proposals(search, "c" * 40, project / "log").study
    assert [trial.constraints for trial in study.trials] == [{"size at most 5": number - 5.0} for number in range(8)]


# metrics


def test_metrics_are_numbers_by_their_dotted_keys() -> None:
    metrics = {"size_mb": 3, "note": "text", "gone": None, "nan": float("nan"), "passed": True, "calibration": {"rows": 128}}
    assert dict(numbers(metrics)) == {"size_mb": 3.0, "passed": 1.0, "calibration.rows": 128.0}


def test_shares_are_those_of_the_default() -> None:
    bounds = {"speed": Bound(min_share_of_default=0.9), "size": Bound(max_share_of_default=1.1, min=5)}
    slow, fast = limits(bounds, {"speed": 80.0, "size": 100.0}), limits(bounds, {"speed": 10.0, "size": 100.0})
    assert [str(limit) for limit in slow] == [
        "speed at least 72 (0.9 of the default's 80)",
        "size at most 110 (1.1 of the default's 100)",
        "size at least 5",
    ]
    assert slow[0].excess({"speed": 72.0}) <= 0 < slow[0].excess({"speed": 71.9})
    assert fast[0].excess({"speed": 9.0}) <= 0


def test_a_metric_that_is_not_there_comes_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"^no metric sped; a trial has size, speed$"):
        limits({"sped": Bound(min=1)}, {"speed": 80.0, "size": 100.0})


EVALUATED = {
    "accuracy": 0.95,
    "metrics/evaluate/onnx.json:rows": 60.0,
    "metrics/evaluate/onnx.json:accuracy_low": 0.863,
    "metrics/evaluate/onnx.json:accuracy_high": 0.983,
}


def test_few_rows_are_told_with_the_interval_and_the_cure() -> None:
    assert resolution(EVALUATED) == (
        "trials are scored on 60 validation rows: one row is 0.0167, and the interval of the default recipe's accuracy, "
        "0.950, is 0.863 to 0.983; set data.eval_dataset_size in overrides for more rows"
    )
    more = EVALUATED | {"metrics/evaluate/onnx.json:rows": 240.0, "metrics/evaluate/onnx.json:accuracy_low": 0.915}
    assert resolution(more).endswith("is 0.915 to 0.983")
    assert resolution({"size": 1.0}) == ""


# the verdict


def trial(name: str, size: float, drop: float, speed: float) -> Trial:
    return Trial(name, {"build.block_size": name}, {"size": size, "drop": drop, "speed": speed})


SEARCH = Search(
    {"build.block_size": ["a"]},
    minimize="size",
    constraints={"drop": Bound(max=0.01), "speed": Bound(min_share_of_default=0.9)},
)
DEFAULT = Trial("default", {}, {"size": 100.0, "drop": 0.005, "speed": 80.0})
SMALLER = trial("smaller", 90.0, 0.01, 72.0)  # on both limits
SMALLEST = trial("smallest", 60.0, 0.02, 90.0)  # loses too much
SLOW = trial("slow", 70.0, 0.0, 71.0)
WORSE = trial("worse", 110.0, 0.006, 79.0)  # the default is better in everything
FAILED = Trial("failed", {"build.block_size": "7"}, reason="build: the builder refuses [with T = float]")


def test_the_winner_is_the_best_of_those_that_keep_every_limit() -> None:
    verdict = judge(SEARCH, [DEFAULT, SMALLEST, SLOW, SMALLER, WORSE, FAILED])
    assert verdict.winner is SMALLER
    assert verdict.feasible == [DEFAULT, SMALLER, WORSE]
    assert [limit.metric for limit in verdict.broken(SLOW)] == ["speed"]
    assert sentence(verdict) == (
        "smaller (build.block_size=smaller) wins: its size, 90, is the lowest of the 3 (of 5 that finished) with drop at most "
        "0.01 and speed at least 72 (0.9 of the default's 80); the default recipe has 100."
    )


def test_the_front_has_what_nothing_beats_in_every_figure() -> None:
    assert judge(SEARCH, [DEFAULT, SMALLEST, SLOW, SMALLER, WORSE, FAILED]).front == [DEFAULT, SMALLEST, SLOW, SMALLER]


def test_more_can_be_better() -> None:
    verdict = judge(
        Search({"a.b": [1]}, maximize="speed", constraints={"size": Bound(max=95)}), [DEFAULT, SMALLEST, SLOW, SMALLER]
    )
    assert verdict.winner is SMALLEST
    assert verdict.front == [SMALLEST]
    assert "its speed, 90, is the highest of the 3" in sentence(verdict)


def test_of_equals_the_default_wins() -> None:
    verdict = judge(SEARCH, [DEFAULT, Trial("same", {"build.block_size": "32"}, dict(DEFAULT.metrics))])
    assert verdict.winner is DEFAULT
    assert sentence(verdict).startswith("default (the default recipe) wins: its size, 100, ")


def test_where_no_recipe_keeps_the_limits_the_closest_is_named() -> None:
    strict = Search(SEARCH.space, minimize="size", constraints={"drop": Bound(max=0.004), "speed": Bound(min=75)})
    verdict = judge(strict, [DEFAULT, SMALLEST, WORSE, FAILED])
    assert verdict.winner is None
    assert sentence(verdict) == (
        "No recipe has drop at most 0.004 and speed at least 75. Closest is default (the default recipe) with drop 0.005."
    )


def test_the_test_rows_are_told_apart_from_the_validation_rows() -> None:
    worse = Trial("smaller-test", SMALLER.choices, SMALLER.metrics | {"drop": 0.03})
    verdict = replace(judge(SEARCH, [DEFAULT, SMALLER]), tested=[worse, replace(DEFAULT, name="default-test")])
    assert lines_of_test_rows(verdict) == [
        "smaller-test (build.block_size=smaller): size 90, drop 0.03, speed 72; breaks drop",
        "default-test (the default recipe): size 100, drop 0.005, speed 80",
    ]
    failed = replace(verdict, tested=[FAILED, DEFAULT])
    assert lines_of_test_rows(failed)[0] == "failed (build.block_size=7) failed: build: the builder refuses [with T = float]"
    assert lines_of_test_rows(judge(SEARCH, [DEFAULT])) == []


def test_an_accuracy_comes_with_its_interval() -> None:
    accurate = Search(SEARCH.space, maximize="accuracy")
    verdict = judge(accurate, [Trial("default", {}, EVALUATED)])
    assert lines_of_test_rows(replace(verdict, tested=verdict.trials)) == [
        "default (the default recipe): accuracy 0.95 (0.863 to 0.983)"
    ]


def test_a_recipe_that_was_proposed_twice_counts_once() -> None:
    assert judge(SEARCH, [DEFAULT, SMALLER, SMALLER]).trials == [DEFAULT, SMALLER]


def shown(verdict: Verdict) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table(verdict))
    return capture.get()


def test_the_table_has_the_winner_first_and_the_reason_of_a_failure(tmp_path: Path) -> None:
    verdict = judge(SEARCH, [DEFAULT, FAILED, SMALLEST, SMALLER])
    lines = [line for line in shown(verdict).splitlines() if line.startswith("│")]
    assert [line.split("│")[1].strip() for line in lines] == ["smaller", "default", "smallest", "failed"]
    assert "winner, Pareto front" in lines[0]
    assert "breaks drop" in lines[2]
    assert "failed: build: the builder refuses [with T = float]" in lines[3]


def test_a_recipe_that_differs_by_more_than_chance_is_marked() -> None:
    verdict = replace(judge(SEARCH, [DEFAULT, SMALLEST, SMALLER]), p_values={"smaller": 0.3, "smallest": 0.0012})
    text = shown(verdict)
    assert "differs from the default (p 0.0012)" in " ".join(text.replace("│", " ").split())
    assert text.count("differs") == 1


def test_the_goal_is_drawn_against_a_metric_with_its_interval(tmp_path: Path) -> None:
    search = Search({"data.max_samples": [50]}, maximize="accuracy", against="metrics/prepare.json:splits.train")
    fewer = Trial("fewer", {"data.max_samples": "50"}, EVALUATED | {"metrics/prepare.json:splits.train": 50.0})
    more = Trial("default", {}, EVALUATED | {"metrics/prepare.json:splits.train": 720.0})
    plot(judge(search, [more, fewer]), tmp_path / "curve.svg")
    drawn = (tmp_path / "curve.svg").read_text(encoding="utf-8")
    assert all(f">{word}<" in drawn for word in ("splits.train", "accuracy"))


def test_seeds_alone_have_a_mean_and_a_spread() -> None:
    trials = [Trial(f"seed-{value}", {}, {"accuracy": value}) for value in (0.94, 0.95, 0.96)]
    seeds = judge(Search({"seed": [1, 2]}, maximize="accuracy"), trials)
    assert spread(seeds) == "accuracy of 3 seeds: mean 0.95, standard deviation 0.01, 0.94 to 0.96."
    assert spread(judge(Search({"seed": [1], "adapter.r": [4]}, maximize="accuracy"), trials)) == ""
    assert spread(judge(Search({"seed": [1]}, maximize="accuracy"), trials[:1])) == ""


def test_the_plot_names_the_front_and_is_the_same_each_time(tmp_path: Path) -> None:
    verdict = judge(SEARCH, [DEFAULT, FAILED, SMALLEST, SMALLER, WORSE])
    for name in ("one.svg", "two.svg"):
        plot(verdict, tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert all(f">{word}<" in drawn for word in ("smaller", "smallest", "default", "winner", "breaks a limit", "size", "speed"))
    assert ">worse<" not in drawn
    assert drawn == (tmp_path / "two.svg").read_text(encoding="utf-8")


# trials


def test_a_key_of_the_project_can_be_read_by_its_owner_alone_in_the_clone_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        ["git", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "remote", "add", "--quiet", "--default", "mine", "azure://rows/x"],
        [sys.executable, "-m", "dvc", "remote", "modify", "--local", "mine", "account_key", "hush"],
        ["git", "add", "--all"],
        ["git", "-c", "user.name=t", "-c", "user.email=t", "commit", "--quiet", "-m", "state"],
    ):
        subprocess.run(command, check=True)
    folder = tmp_path / ".search/mine/clone"
    Clone("mine", folder, [])
    files = [file for file in folder.rglob("*") if file.is_file() and b"hush" in file.read_bytes()]
    assert [file.relative_to(folder).as_posix() for file in files] == [".dvc/config.local"]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("build: the builder refuses\nERROR: failed to reproduce 'build': exited with 1\n", "build: the builder refuses"),
        ("evaluate_onnx: no rows\nERROR: failed to reproduce 'evaluate@onnx': exited with 1\n", "evaluate_onnx: no rows"),
        ("ERROR: failed to reproduce 'train': exited with -9\n", "failed to reproduce 'train': exited with -9"),
        ("ERROR: unexpected error - disk full\n", "unexpected error - disk full"),
        ("", "no error message"),
    ],
)
def test_the_reason_of_a_failure_is_the_line_of_the_stage(lines: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(lines, encoding="utf-8")
    assert reason(tmp_path / "log", 255) == expected
    assert reason(tmp_path / "log", -9) == "killed by signal 9"


def test_a_lock_lasts_as_long_as_anyone_has_it(tmp_path: Path) -> None:
    def taken() -> None:
        raise InputError("taken")

    with file_lock(tmp_path / "lock", taken), pytest.raises(InputError, match="taken"), file_lock(tmp_path / "lock", taken):
        pass
    with file_lock(tmp_path / "lock", taken):
        pass
