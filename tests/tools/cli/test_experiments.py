"""`make exp-show`: ten experiments fit a terminal of 120 columns, with all figures that decide and all that differs."""

import io
from typing import Any

import pytest
from rich.console import Console

from tools.cli import experiments
from tools.cli.experiments import table
from tunepress.core.files import parse_csv

FIGURES: dict[str, Any] = {
    "accuracy": 0.9417,
    "drop": 0.0125,
    "kl": 0.01663,
    "size_mb": 117.15,
    "tokens_s": 64.74,
    "gate": "passed",
}
PARAMETERS: dict[str, Any] = {
    "adapter.method": "lora",
    "build.algo_config": "k_quant_mixed",
    "build.block_size": 32.0,
    "data.text_template": "### Text: {phrase}\n### The tone is:\n{tone}",
    "train.learning_rate": 0.001,
    "train.eval_steps": 40.0,
    "base_model.name": "SmolLM2-135M-Instruct",
    "base_model.sha256": "bcc8",
    "seed": 0.0,
}
OTHERS: dict[str, Any] = {"train_loss": 0.2393, "tokens.min": 19.0, "stages/train/stage.py": "dd8e"}


def run(name: str | None, **changed: Any) -> dict[str, Any]:
    """A row as `dvc.api.exp_show` gives it; __ stands for a dot."""
    row = {"Experiment": name, "rev": "e9164ce", "typ": "branch_commit", "State": None, **FIGURES, **PARAMETERS, **OTHERS}
    return row | {key.replace("__", "."): value for key, value in changed.items()}


def shown(rows: list[dict[str, Any]], p_values: dict[str, float] | None = None) -> str:
    written = io.StringIO()
    Console(file=written, width=120).print(table(rows, p_values))
    return written.getvalue()


COMMIT = run(None, rev="main", typ="baseline")


def test_ten_experiments_that_differ_in_two_parameters_fit_with_all_their_figures() -> None:
    runs = [run(f"patient-name-{number}", build__algo_config="gptq", train__learning_rate=number / 10000) for number in range(10)]
    text = shown([run(None, rev="workspace", typ="baseline"), COMMIT, *runs])
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    for number in range(10):
        assert text.count(f"patient-name-{number}") == 1
    assert text.count("build.algo_config=gptq") == 10
    assert "train.learning_rate=0.0009" in text
    assert text.count("117.2") == 12
    assert text.count("0.0166") == 12


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"adapter__method": "dora"}, "adapter.method=dora"),
        ({"seed": 3.0}, "seed=3"),
        ({"build__block_size": 16.0}, "build.block_size=16"),
        ({"base_model__name": "tiny"}, "base_model.name=tiny"),
        ({"image": "tunepress-train:cpu@0123456789ab"}, "image=tunepress-train:cpu@0123456789ab"),
        ({"gate": "max_drop 0.08 > 0.05"}, "│    max_drop │"),
        ({"gate": "max_drop 0.08 > 0.05"}, "│ 0.08 > 0.05 │"),
        ({"State": "Failed"}, "failed"),
        ({"State": "Queued", "accuracy": None}, "queued"),
    ],
)
def test_what_differs_from_the_commit_is_told(changed: dict[str, Any], line: str) -> None:
    assert line in shown([COMMIT, run("one", **changed)])


def test_what_another_column_tells_and_what_is_no_parameter_is_left_out() -> None:
    text = shown(
        [COMMIT, run("one", train__eval_steps=10.0, base_model__sha256="0000", train_loss=0.1, **{"stages/train/stage.py": "0"})]
    )
    for name in ("eval_steps", "sha256", "train_loss", "stages"):
        assert name not in text


def test_a_run_outside_of_an_image_tells_none() -> None:
    assert "image" not in shown([COMMIT, run("one", **{"image": "None"})])


def test_free_text_is_compared_by_exact_match() -> None:
    text_task = {name: value for name, value in COMMIT.items() if "accuracy" not in name}
    text = shown([text_task | {"exact_match": 0.24, "merged": 0.25}])
    assert "exact_match" in text
    assert "accuracy" not in text


def test_differences_beyond_chance_are_marked() -> None:
    text = shown([COMMIT, run("one", rev="1111111"), run("two", rev="2222222")], {"1111111": 0.0312, "2222222": 0.5})
    (first,), (second,) = ([line for line in text.splitlines() if name in line] for name in ("│ one", "│ two"))
    assert "0.942*" in first
    assert "0.942 " in second
    assert "McNemar's exact test with Holm's correction" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 120


def test_experiments_are_compared_with_the_commit_on_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(right: int, rows: int = 20) -> str:
        lines = [f'"row {number}","joy","{"joy" if number < right else "fear"}"' for number in range(rows)]
        return "\n".join(['"source","expected","predicted"', *lines])

    known = {"main": answers(20), "1111111": answers(8), "2222222": answers(19), "3333333": answers(9, rows=10)}
    monkeypatch.setattr(experiments, "shipped_answers", lambda revision: parse_csv(known.get(revision, "")))
    names = ("1111111", "2222222", "3333333", "4444444")
    rows = [run(None, rev="workspace", typ="baseline"), COMMIT, *(run(name, rev=name) for name in names)]
    # 12 rows of 20 are wrong: 2 / 2 ** 12 = 0.000488, rounded to four digits, times two for Holm; one row is nothing
    assert experiments.p_values(rows) == {"1111111": pytest.approx(0.001), "2222222": 1.0}
    monkeypatch.setattr(experiments, "shipped_answers", lambda revision: [])
    assert experiments.p_values(rows) == {}


def test_a_long_value_is_folded_and_not_cut() -> None:
    template = "A very long template, " * 10
    text = shown([COMMIT, run("one", data__text_template=template)])
    assert max(map(len, text.splitlines())) <= 120
    assert text.count("long") == 10
