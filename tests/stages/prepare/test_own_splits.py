"""Validation and test rows of one's own."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from stages.prepare.stage import prepare
from tunepress.config.data import Data
from tunepress.core.errors import InputError
from tunepress.models.hf_model import load_encoder

TONES = ("joy", "fear")
Prepared = tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]


def phrases(count: int, about: str) -> list[dict[str, str]]:
    return [{"phrase": f"{about} {number} of {tone}", "tone": tone} for number in range(count) for tone in TONES]


def write(path: Path, rows: list[dict[str, str]]) -> list[str]:
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
    with pytest.raises(InputError, match=r"^data\.validation_files: no rows are left; all were dropped as duplicates"):
        run(replace(data, validation_files=file))
