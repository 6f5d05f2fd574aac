"""Raw rows: what a file says, in its order, and errors that say where."""

import json
import os
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from stages.lib.edge.errors import InputError
from stages.lib.rows import read_files, read_hub

ROWS: list[dict[str, Any]] = [
    {"phrase": "Süße Grüße, 東京 😀", "tone": "joy", "score": 3},
    {"phrase": 'He said "no",\nand left', "tone": "sadness", "score": -7},
]


def write(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8", newline="")
    return str(path)


def values(*files: str) -> list[dict[str, Any]]:
    return [row.values for row in read_files(list(files))]


def refused(*files: str) -> str:
    with pytest.raises(InputError) as raised:
        read_files(list(files))
    message = str(raised.value)
    assert "\n" not in message
    assert any(file in message for file in files)
    return message


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The same rows in each kind of file."""
    csv = 'phrase,tone,score\n"Süße Grüße, 東京 😀",joy,3\n"He said ""no"",\nand left",sadness,-7\n'
    parquet = str(tmp_path / "rows.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS), parquet)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    return {
        "json": write(tmp_path / "rows.json", json.dumps(ROWS, indent=2)),
        "jsonl": write(tmp_path / "rows.jsonl", lines),
        "ndjson": write(tmp_path / "rows.NDJSON", lines.replace("\n", "\r\n")),
        "csv": write(tmp_path / "rows.csv", csv),
        "parquet": parquet,
    }


@pytest.mark.parametrize("kind", ["json", "jsonl", "ndjson", "csv", "parquet"])
def test_every_kind_of_file_gives_the_same_rows_with_numbers_as_numbers(files: dict[str, str], kind: str) -> None:
    rows = read_files([files[kind]])
    assert [row.values for row in rows] == ROWS
    assert [row.source for row in rows] == [f"{files[kind]} row 1", f"{files[kind]} row 2"]


def test_several_files_are_read_in_the_order_of_their_names(files: dict[str, str]) -> None:
    chosen = [files["parquet"], files["csv"], files["parquet"]]
    assert [row.source.rsplit(" row ")[0] for row in read_files(chosen)] == [file for file in chosen for _ in ROWS]


def test_no_files_are_no_rows() -> None:
    assert read_files([]) == []


@pytest.mark.parametrize("phrase", ["a\u2028b", "a\x85b", "tab\tand\\slash", "e\u0301", " spaces ", "nul\x00"])
def test_a_phrase_comes_back_character_by_character(tmp_path: Path, phrase: str) -> None:
    for ascii_only in (True, False):
        line = json.dumps({"phrase": phrase}, ensure_ascii=ascii_only)
        assert values(write(tmp_path / "rows.jsonl", line + "\n" + '{"phrase": "next"}')) == [
            {"phrase": phrase},
            {"phrase": "next"},
        ]


@pytest.mark.parametrize("text", ["2024-01-31", "2024-01-31 10:00:00", "2024-01-31T10:00:00Z", "12:30:00", "007", "1e5", "true"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_text_that_looks_like_a_date_or_number_stays_text(tmp_path: Path, suffix: str, text: str) -> None:
    rows = [{"phrase": text}, {"phrase": text}]
    content = json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows))
    assert values(write(tmp_path / f"rows{suffix}", content)) == rows


@pytest.mark.parametrize("text", ["NA", "null", "None", "nan", "n/a"])
def test_words_that_pandas_takes_for_nothing_are_words_in_csv(tmp_path: Path, text: str) -> None:
    assert values(write(tmp_path / "rows.csv", f"phrase,tone\n{text},joy\n")) == [{"phrase": text, "tone": "joy"}]


def test_a_column_that_only_some_rows_have_is_none_in_the_others(tmp_path: Path) -> None:
    rows = values(write(tmp_path / "rows.jsonl", '{"a": "x"}\n{"b": "y"}\n'))
    assert [(row.get("a"), row.get("b")) for row in rows] == [("x", None), (None, "y")]


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("middle.jsonl", '{"a": 1}\n{"a": 2\n{"a": 3}\n', "middle.jsonl line 2: not JSON"),
        ("after_blank.jsonl", '{"a": 1}\n\n{"a": nope}\n', "after_blank.jsonl line 3: not JSON"),
        ("last.jsonl", '{"a": 1}\n{"a": 2}\n{"a":', "last.jsonl line 3: not JSON"),
        ("separator.jsonl", '{"a": "x\u2028y"}\n{"a"}\n', "separator.jsonl line 2: not JSON"),
        ("number.jsonl", '{"a": 1}\n3\n', "number.jsonl line 2: a row must be a JSON object, not int"),
        ("words.jsonl", "plain words\n", "words.jsonl line 1: not JSON"),
        ("array.json", '[{"a": 1},\n {"a": 2}\n {"a": 3}]', "array.json line 3: not JSON"),
        ("unclosed.json", '[{"a": 1},\n {"a": 2}\n', "unclosed.json line 3: not JSON"),
        ("comma.json", '[\n{"a": 1},\n]', "comma.json line "),
        ("scalars.json", "[1, 2]", "scalars.json"),
    ],
)
def test_broken_json_is_named_with_its_file_and_line(tmp_path: Path, name: str, content: str, where: str) -> None:
    assert where in refused(write(tmp_path / name, content))


def test_a_broken_file_is_named_among_good_ones(tmp_path: Path, files: dict[str, str]) -> None:
    broken = write(tmp_path / "broken.jsonl", '{"a": 1}\n{\n')
    assert refused(files["csv"], broken, files["json"]).startswith(f"{broken} line 2: ")


@pytest.mark.parametrize("name", ["latin.jsonl", "latin.json", "latin.csv"])
def test_a_file_that_is_not_utf8_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes('{"phrase": "schön"}\n'.encode("latin-1"))
    refused(str(tmp_path / name))


def test_a_csv_line_with_too_many_cells_is_named(tmp_path: Path) -> None:
    assert "line 3" in refused(write(tmp_path / "rows.csv", "a,b\n1,2\n1,2,3\n"))


@pytest.mark.parametrize("content", [b"nope", b"PAR1 not at all PAR1"])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.parquet").write_bytes(content)
    refused(str(tmp_path / "rows.parquet"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in refused(str(tmp_path / "absent.jsonl"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    assert "no such file" in refused(str(tmp_path / "folder.jsonl"))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"])
def test_an_empty_file_is_named(tmp_path: Path, name: str) -> None:
    assert "empty" in refused(write(tmp_path / name, ""))


@pytest.mark.parametrize(("name", "content"), [("blank.jsonl", " \n\n"), ("none.json", "[]"), ("heading.csv", "phrase,tone\n")])
def test_a_file_without_a_row_is_named(tmp_path: Path, name: str, content: str) -> None:
    refused(write(tmp_path / name, content))


@pytest.mark.parametrize("name", ["rows.txt", "rows", "rows.xlsx", "rows.jsonl.gz"])
def test_an_unknown_kind_of_file_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    message = refused(write(tmp_path / name, '{"a": 1}\n'))
    assert all(kind in message for kind in (".json", ".jsonl", ".csv", ".parquet"))


@pytest.mark.parametrize("name", ["rows[1].jsonl", "rows*.jsonl", "a b {c}?.jsonl"])
def test_a_name_with_pattern_characters_is_one_file(tmp_path: Path, name: str) -> None:
    write(tmp_path / "rows1.jsonl", '{"a": "other"}\n')
    write(tmp_path / "rows2.jsonl", '{"a": "other"}\n')
    assert values(write(tmp_path / name, '{"a": "this"}\n')) == [{"a": "this"}]


def test_an_edit_that_keeps_size_and_time_is_read_anew(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", '{"a": "old"}\n')
    times = (Path(file).stat().st_atime_ns, Path(file).stat().st_mtime_ns)
    assert values(file) == [{"a": "old"}]
    write(Path(file), '{"a": "new"}\n')
    os.utime(file, ns=times)
    assert values(file) == [{"a": "new"}]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A local dataset folder, and a cache that goes with it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "dataset"
    folder.mkdir()
    for name, phrase in (("train", "to learn"), ("test", "to ask")):
        write(folder / f"{name}.jsonl", json.dumps({"phrase": phrase}) + "\n")
    return str(folder)


def test_a_dataset_folder_is_read_split_by_split(dataset: str) -> None:
    assert [row.values for row in read_hub(dataset, None, None, "train")] == [{"phrase": "to learn"}]
    asked = read_hub(dataset, None, None, "test")
    assert [row.values for row in asked] == [{"phrase": "to ask"}]
    assert asked[0].source == f"{dataset} row 1"


@pytest.mark.parametrize("split", [None, "holdout"])
def test_a_dataset_without_the_split_is_named(dataset: str, split: str | None) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as raised:
        read_hub(dataset, None, None, split)
    assert dataset in str(raised.value)


@pytest.mark.parametrize("revision", [None, "", "main", "v1.0", "abc123"])
def test_a_hub_dataset_needs_a_commit(revision: str | None) -> None:
    with pytest.raises(InputError, match=r"^data\.revision: .* is no commit"):
        read_hub("nobody/no-such-dataset", None, revision, "train")


def test_forty_letters_are_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"^data\.revision: "):
        read_hub("nobody/no-such-dataset", None, "a-branch-with-a-name-of-forty-characters", "train")
