"""Validation and test rows of one's own, and several datasets."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from stages.evaluate.stage import measure
from stages.prepare.stage import prepare
from tests.stages.training import sections
from tunepress.config import checks
from tunepress.config.adapter import Method
from tunepress.config.data import Data, Dataset, Format
from tunepress.core.errors import InputError
from tunepress.models.hf_model import load_encoder
from tunepress.text.prompt import Prompt
from tunepress.text.segments import Turn

TONES = ("joy", "fear")
Prepared = tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]


def phrases(count: int, about: str) -> list[dict[str, str]]:
    return [{"phrase": f"{about} {number} of {tone}", "tone": tone} for number in range(count) for tone in TONES]


def write(path: Path, rows: list[dict[str, Any]]) -> list[str]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [str(path)]


@pytest.fixture
def data(root: Path, tmp_path: Path) -> Data:
    settings = {"labels": TONES, "files": write(tmp_path / "rows.jsonl", phrases(10, "number"))}
    section = OmegaConf.merge(OmegaConf.structured(Data), OmegaConf.load(root / "conf/data/tone.yaml"), settings)
    data = OmegaConf.to_object(section)
    assert isinstance(data, Data)
    return data


@pytest.fixture
def run(tiny_phi3: Path) -> Callable[[Data], Prepared]:
    return lambda data: prepare(data, 0, load_encoder(tiny_phi3))[1:]


def test_validation_files_are_the_validation_split_and_nothing_else(
    data: Data, tmp_path: Path, run: Callable[[Data], Prepared]
) -> None:
    own = [*phrases(2, "validated"), phrases(1, "validated")[0]]
    chosen = replace(data, validation_files=write(tmp_path / "validation.jsonl", own), test_size=0.2)
    splits, metrics = run(chosen)
    sources = [f"{tmp_path / 'validation.jsonl'} row {number}" for number in range(1, 5)]
    assert [row["source"] for row in splits["validation"]] == sources
    assert metrics["splits"] == {"train": 16, "validation": 4, "test": 4}
    assert (metrics["rows"], metrics["dropped"]["duplicates"], metrics["labels"]) == (25, 1, {"fear": 12, "joy": 12})
    splits, _ = run(replace(chosen, test_files=write(tmp_path / "test.jsonl", phrases(1, "tested"))))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 20, "validation": 4, "test": 2}


def test_a_validation_row_that_is_trained_on_is_named(data: Data, tmp_path: Path, run: Callable[[Data], Prepared]) -> None:
    file = write(tmp_path / "validation.jsonl", [*phrases(1, "validated"), *phrases(1, "number")])
    with pytest.raises(InputError, match=rf"^{file[0]} row 3: this prompt is also in another split, 2 in all; remove them"):
        run(replace(data, validation_files=file, test_size=0.0))


def test_validation_files_that_lose_all_rows_are_refused(data: Data, tmp_path: Path, run: Callable[[Data], Prepared]) -> None:
    file = write(tmp_path / "validation.jsonl", [{"phrase": "both", "tone": tone} for tone in TONES])
    with pytest.raises(InputError, match=r"^data\.validation_files: no rows are left; all were dropped \(conflicting_labels: 2"):
        run(replace(data, validation_files=file))


@pytest.fixture
def two(data: Data, tmp_path: Path) -> Data:
    """Two datasets, of which the first counts twice and the second half."""
    first = write(tmp_path / "first.jsonl", phrases(20, "first"))[0]
    second = write(tmp_path / "second.jsonl", phrases(20, "second"))[0]
    datasets = [Dataset(first, "one", 2.0), Dataset(second, "two", 0.5)]
    return replace(data, files=[], datasets=datasets, test_size=0.2, eval_dataset_size=0.1)


def test_rows_of_several_datasets_have_their_name_and_weight(two: Data, run: Callable[[Data], Prepared]) -> None:
    unweighted, _ = run(replace(two, datasets=[replace(dataset, weight=1.0) for dataset in two.datasets]))
    splits, metrics = run(two)
    assert {(Path(row["source"].split(" row ")[0]).stem, row["name"]) for rows in splits.values() for row in rows} == {
        ("first", "one"),
        ("second", "two"),
    }
    for name in ("validation", "test"):
        assert splits[name] == unweighted[name]
    counts = Counter(row["source"] for row in splits["train"])
    each = {name: [counts[row["source"]] for row in unweighted["train"] if row["name"] == name] for name in ("one", "two")}
    assert set(each["one"]) == {2}
    assert sorted(set(each["two"])) == [0, 1]
    assert sum(each["two"]) == round(len(each["two"]) / 2)
    assert metrics["datasets"]["train"] == {"one": sum(each["one"]), "two": sum(each["two"])}
    assert run(two) == (splits, metrics)


def test_weights_that_leave_no_rows_are_refused(two: Data, run: Callable[[Data], Prepared]) -> None:
    with pytest.raises(InputError, match=r"^data\.datasets: the weights leave no training rows; raise them$"):
        run(replace(two, datasets=[replace(dataset, weight=0.001) for dataset in two.datasets]))


def conversations(folder: Path, root: Path, data: Data) -> Data:
    """Two datasets of conversations, each in another format, and a template for them."""
    pairs = [(f"How late is it at number {number}?", f"It is {number}.") for number in range(20)]
    write(
        folder / "shared.jsonl",
        [{"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]} for q, a in pairs],
    )
    write(folder / "alpaca.jsonl", [{"instruction": q.replace("late", "far"), "output": a} for q, a in pairs])
    entries = [{"path": str(folder / f"{name}.jsonl"), "name": name} for name in ("shared", "alpaca")]
    template = str(root / "conf/chat_templates/chatml.jinja")
    return replace(data, files=[], datasets=entries, labels=None, text_template=None, chat_template=template, test_size=0.2)


def test_each_dataset_may_have_another_format(data: Data, root: Path, tmp_path: Path, run: Callable[[Data], Prepared]) -> None:
    chosen = conversations(tmp_path, root, data)
    _, metrics = run(chosen)
    assert {name: sum(counts[name] for counts in metrics["datasets"].values()) for name in ("shared", "alpaca")} == {
        "shared": 20,
        "alpaca": 20,
    }
    named = [dataset for dataset in chosen.datasets if dataset.name == "alpaca"]
    wrong = [*chosen.datasets[:1], replace(named[0], format=Format.messages)]
    with pytest.raises(InputError, match=r"alpaca\.jsonl row 1: no column 'messages'"):
        run(replace(chosen, datasets=wrong))
    wrong = [*chosen.datasets[:1], replace(named[0], format=Format.template)]
    with pytest.raises(InputError, match=r"alpaca\.jsonl row 1: fills a template, but other rows are conversations"):
        run(replace(chosen, datasets=wrong))


def test_each_dataset_is_measured_by_its_name() -> None:
    turns = [Turn("here", "x", "joy", "joy", name) for name in ("one", "one", "two")]
    prompt = Prompt("{a}", "{b}", ("joy", "fear"), source_max_len=9)
    table = [{"expected": "joy", "predicted": label} for label in ("joy", "fear", "joy")]
    metrics = measure(turns, table, prompt, 0.95)["datasets"]
    assert {name: (values["rows"], values["accuracy"]) for name, values in metrics.items()} == {"one": (2, 0.5), "two": (1, 1.0)}
    assert "datasets" not in measure([Turn("here", "x", "joy", "joy")], table[:1], prompt, 0.95)


# rows without a training


@pytest.fixture
def only_tested(data: Data, tmp_path: Path) -> Data:
    """Test rows of one's own and no others, as for an adapter that was trained elsewhere."""
    return replace(data, files=[], test_files=write(tmp_path / "test.jsonl", phrases(3, "tested")))


def test_test_rows_alone_are_prepared(only_tested: Data, run: Callable[[Data], Prepared]) -> None:
    splits, metrics = run(only_tested)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 0, "validation": 0, "test": 6}
    assert (metrics["splits"], metrics["train_sequences"]) == ({"train": 0, "validation": 0, "test": 6}, 0)


def test_calibration_rows_are_prepared_like_the_others(
    only_tested: Data, tmp_path: Path, run: Callable[[Data], Prepared]
) -> None:
    calibration = write(tmp_path / "calibration.jsonl", [*phrases(2, "calibrated"), {"phrase": "wordy " * 60, "tone": "joy"}])
    splits, metrics = run(replace(only_tested, calibration_files=calibration))
    assert [row["source"] for row in splits["calibration"]] == [f"{calibration[0]} row {number}" for number in range(1, 5)]
    assert metrics["splits"]["calibration"] == 4
    assert metrics["dropped"]["overlong"] == 1


def test_training_rows_may_be_calibration_rows_and_test_rows_may_not(
    data: Data, tmp_path: Path, run: Callable[[Data], Prepared]
) -> None:
    chosen = replace(data, test_files=write(tmp_path / "test.jsonl", phrases(3, "tested")), eval_dataset_size=0.0)
    same = replace(chosen, calibration_files=data.files)
    assert len(run(same)[0]["calibration"]) == len(run(chosen)[0]["train"]) == 20
    leaked = replace(chosen, calibration_files=write(tmp_path / "calibration.jsonl", phrases(1, "tested")))
    with pytest.raises(InputError, match=r"calibration\.jsonl row 1: this prompt is also in another split, 2 in all; "):
        run(leaked)


@pytest.mark.parametrize(
    ("method", "files", "tests", "message"),
    [
        (Method.lora, [], ["t"], "data.files: is empty; name a file, or a dataset in data.path"),
        (Method.file, [], [], "data.test_files: is empty, and so is data.files; name the rows to measure the model with"),
        (Method.file, [], ["t"], None),
        (Method.none, [], ["t"], None),
        (Method.lora, ["f"], [], None),
    ],
)
def test_only_a_training_needs_training_rows(
    method: Method, files: list[str], tests: list[str], message: str | None, data: Data, root: Path
) -> None:
    adapter = replace(sections(root).adapter, method=method, path="x" if method is Method.file else None)
    assert checks.problem({"data": replace(data, files=files, test_files=tests), "adapter": adapter}) == message
