"""Every kind of file of rows is read with the spelling that it has, or refused with the cure."""

import gzip
import json
import re
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import datasets
import pandas as pd  # type: ignore[import-untyped]
import pytest
from openpyxl import Workbook  # type: ignore[import-untyped]

from stages.prepare.rows import read_files, read_hub
from tunepress.core.errors import InputError
from tunepress.core.row_files import find_files

ROWS = [{"phrase": "Oh, how; lovely | 東京", "tone": "joy"}, {"phrase": "01", "tone": "true"}, {"phrase": "19.90", "tone": ""}]
CSV = 'phrase,tone\n"Oh, how; lovely | 東京",joy\n01,true\n19.90,\n'
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def workbook(path: Path, *rows: list[Any], formats: dict[str, str] | None = None, sheets: int = 1) -> str:
    book = Workbook()
    for row in rows:
        book.active.append(row)
    for cell, number_format in (formats or {}).items():
        book.active[cell].number_format = number_format
    for number in range(1, sheets):
        book.create_sheet(f"more {number}").append(["other"])
    book.save(path)
    return str(path)


def values(*files: str) -> list[dict[str, Any]]:
    return [row.values for row in read_files(list(files))]


def refused(*files: str) -> str:
    with pytest.raises(InputError, match=r"^[^\n]*$") as raised:
        for row in read_files(list(files)):
            for column in row.values:
                row.text(column)
    return str(raised.value)


def delimited(mark: str) -> str:
    text = CSV.replace("phrase,tone", f"phrase{mark}tone").replace('",joy', f'"{mark}joy')
    return text.replace("01,", f"01{mark}").replace("19.90,", f"19.90{mark}")


@pytest.mark.parametrize(
    ("name", "content", "details"),
    [
        ("rows.csv", CSV, ""),
        ("rows.csv", CSV.replace("\n", "\r\n"), ""),
        ("rows.csv", b"\xef\xbb\xbf" + CSV.encode(), ""),
        ("rows.csv", CSV.encode("utf-16"), "UTF-16"),
        ("rows.csv", "\ufeff".encode("utf-16-be") + CSV.encode("utf-16-be"), "UTF-16"),
        ("rows.csv", delimited(";"), "cells separated by semicolon"),
        ("rows.csv", "sep=;\n" + delimited(";"), "cells separated by semicolon"),
        ("rows.csv", delimited("\t"), "cells separated by tab"),
        ("rows.csv", delimited("|"), "cells separated by pipe"),
        ("rows.csv", delimited("\t").encode("utf-16"), "UTF-16, cells separated by tab"),
        ("rows.tsv", delimited("\t"), ""),
        ("rows.TSV", CSV, "cells separated by comma"),
        ("rows.jsonl", LINES, ""),
        ("rows.jsonl", LINES.encode("utf-16"), "UTF-16"),
        ("rows.ndjson", LINES.replace("\n", "\n\n"), ""),
        ("rows.json", json.dumps(ROWS, indent=2), ""),
        ("rows.json", json.dumps(ROWS), ""),
        ("rows.json", json.dumps(ROWS, indent=2).encode("utf-8-sig"), ""),
        ("rows.json", LINES, ""),
        ("rows.json", "\n".join(json.dumps(row, indent=2) for row in ROWS), "JSON objects one after the other"),
        ("rows.jsonl", "".join(json.dumps(row, indent=2) for row in ROWS), "JSON objects one after the other"),
        ("rows.json", json.dumps({"version": "1.0", "data": ROWS}, indent=2), "the rows are the list 'data'"),
        ("rows.json", json.dumps({"examples": ROWS}), "the rows are the list 'examples'"),
        ("rows.json", pd.DataFrame(ROWS).to_json(), "a JSON table as pandas writes it"),
        ("rows.json", pd.DataFrame(ROWS).to_json(indent=2), "a JSON table as pandas writes it"),
        ("rows.json", pd.DataFrame(ROWS).to_json(orient="index"), "a JSON table as pandas writes it"),
        ("rows.json", pd.DataFrame(ROWS).to_json(orient="split"), "a JSON table as pandas writes it"),
        ("rows.json", pd.DataFrame(ROWS).to_json(orient="table"), "the rows are the list 'data'"),
        ("rows.json", json.dumps(pd.DataFrame(ROWS).to_dict("list")), "a JSON table as pandas writes it"),
    ],
)
@pytest.mark.parametrize("compress", [False, True])
def test_text_is_read_in_every_form_and_what_was_detected_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | bytes, details: str, compress: bool
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    file = write(tmp_path / (name + ".gz" * compress), gzip.compress(data) if compress else data)
    assert [{key: row[key] for key in row if key != "index"} for row in values(file)] == ROWS  # which orient="table" adds
    assert capsys.readouterr().out == (f"prepare: {file}: {details}\n" if details else "")


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", ["rows.parquet", "rows.xlsx", "rows.csv"])
def test_tables_are_read_whatever_their_name_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, compress: bool
) -> None:
    path = tmp_path / name
    if name == "rows.parquet":
        pd.DataFrame(ROWS).to_parquet(path)
    else:
        workbook(path, ["phrase", "tone"], *(list(row.values()) for row in ROWS))
    if compress:
        path = Path(write(tmp_path / f"{name}.gz", gzip.compress(path.read_bytes())))
    assert values(str(path)) == ROWS
    expected = f"prepare: {path}: read as xlsx, which it is in spite of its name\n" if name == "rows.csv" else ""
    assert capsys.readouterr().out == expected


def test_a_cell_of_excel_has_the_text_that_excel_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = ["01", True, 19.9, 7, 1.5, "a_x000D_\nb", None, -0.5]
    formats = {"C2": "0.00", "D2": "000", "H2": "0.0"}
    names = ["a", "b", "c", "d", "e", "f", "g", "h"]
    file = workbook(tmp_path / "rows.xlsx", names, cells, [None] * 8, ["next"], formats=formats, sheets=2)
    assert [list(row.values()) for row in values(file)] == [
        ["01", "TRUE", "19.90", "007", "1.5", "a\r\nb", "", "-0.5"],
        ["next", "", "", "", "", "", "", ""],
    ]
    assert capsys.readouterr().out == f"prepare: {file}: the first of 2 sheets, 'Sheet'\n"


@pytest.mark.parametrize(
    ("cell", "number_format", "message"),
    [
        (date(2024, 1, 31), None, "cell A2 holds a date or time, .* format the column as text"),
        (0.5, "0%", "cell A2 holds a number in the format '0%'; format the column as text"),
        ("#N/A", None, "cell A2 holds the error #N/A; correct it"),
    ],
)
def test_a_cell_of_excel_without_one_text_is_refused_where_it_is_used(
    tmp_path: Path, cell: Any, number_format: str | None, message: str
) -> None:
    file = workbook(tmp_path / "rows.xlsx", ["a", "b"], [cell, "x"], formats={"A2": number_format} if number_format else {})
    (row,) = read_files([file])
    assert row.text("b") == "x"
    with pytest.raises(InputError, match=message):
        row.text("a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("phrase,tone\nOh, how lovely,joy\nNo, never,fear\n", "row 1 (line 2): 3 cells, but the header has 2; put text that"),
        ("phrase,tone\nWell,joy\nOh, how lovely,joy\n", "row 2 (line 3): 3 cells, but the header has 2; put text that"),
        ("phrase,tone\nWell,joy\nOh, joy,\n", "row 2 (line 3): 3 cells, but the header has 2; put text that contains a comma in"),
        (
            "phrase;tone\nOh; how lovely;joy\n",
            "row 1 (line 2): 3 cells, but the header has 2; put text that contains a semicolon in",
        ),
        (
            'phrase,tone\nx,joy\n"never closed,joy\ny,fear\n',
            "row 2 (line 4): not CSV (unexpected end of data); the row begins at line 3",
        ),
        (
            'phrase,tone\n"said "no"",joy\n',
            "row 1 (line 2): not CSV (',' expected after '\"'); the row begins at line 2; close its",
        ),
        ("phrase;a,tone\n", "the cells may be separated by a comma or a semicolon; put the names in the header in double quotes"),
    ],
)
def test_csv_whose_columns_would_shift_is_refused_with_row_and_cure(tmp_path: Path, content: str, message: str) -> None:
    file = write(tmp_path / "rows.csv", content)
    assert refused(file).startswith(f"{file} {message}".replace(f"{file} the", f"{file}: the"))


def test_a_dataset_of_csv_whose_columns_would_shift_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "phrase,tone\nOh, how lovely,joy\nNo, never,fear\n")
    with pytest.raises(InputError, match=r"train\.csv row 1 \(line 2\): 3 cells, but the header has 2; put text"):
        read_hub(str(tmp_path), None, None, "train")
    with pytest.raises(InputError, match=r"^data\.split: must be a split of .* \(train\), got 'train\[:1\]'$"):
        read_hub(str(tmp_path), None, None, "train[:1]")


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("a,b;c\n1,2;3\n4,5\n", [{"a": "1", "b;c": "2;3"}, {"a": "4", "b;c": "5"}]),
        ('a,"b;c"\n1,2\n', [{"a": "1", "b;c": "2"}]),
        ("a;b, c;d\n1;2;3\n", [{"a": "1", "b, c": "2", "d": "3"}]),
        ("a\nx; y\n1|2\n", [{"a": "x; y"}, {"a": "1|2"}]),
        ("a,b\n1;2,3;4\n", [{"a": "1;2", "b": "3;4"}]),
        ("a,b\n1,2,\n3,4,\n", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        ("a;b\n1,5;2,5\n", [{"a": "1,5", "b": "2,5"}]),
    ],
)
def test_the_header_tells_the_delimiter(tmp_path: Path, content: str, rows: list[dict[str, str]]) -> None:
    assert values(write(tmp_path / "rows.csv", content)) == rows


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("rows.jsonl", '{"a": "1"}\n\n{"a": "2", "b": "3", "a": "4"}\n', " row 2 (line 3)"),
        ("rows.jsonl", '{"a": [{"b": "1", "a": "x", "a": "2"}]}\n', " row 1 (line 1)"),
        ("rows.json", '[{"a": "1"}, {"a": "2", "a": "2"}]', " row 2"),
        ("rows.json", '{"data": [{"b": "1"}, {"a": "2", "a": "2"}]}', " row 2"),
        ("rows.json", '{"b": "1"}\n{\n"a": "2",\n"a": "2"}\n', " line 2"),
        ("rows.json", '{"a": "1",\n"a": "2"}\n', ""),
    ],
)
def test_a_key_twice_in_one_object_is_refused(tmp_path: Path, name: str, content: str, where: str) -> None:
    file = write(tmp_path / name, content)
    expected = f"{file}{where}: the key 'a' occurs twice in one object; remove one"
    if where == " line 2":  # after a complete line, each line is a row
        expected = f"{file} line 2: not JSON (Expecting property name enclosed in double quotes)"
    assert refused(file) == expected


CHAT = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "tools": [{"type": "function"}]}


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
@pytest.mark.parametrize(
    "row", [CHAT, {"conversations": [{"from": "human", "value": "x"}]}, {"a": "x"}, {"prompt": {"role": "user"}}]
)
@pytest.mark.parametrize("indent", [None, 2])
def test_one_object_is_one_row_if_it_is_no_table(tmp_path: Path, name: str, row: dict[str, Any], indent: int | None) -> None:
    assert values(write(tmp_path / name, json.dumps(row, indent=indent))) == [row]


@pytest.mark.parametrize("content", ['{"data": []}', '{"a": {}, "b": {}}', '{"a": [], "b": []}'])
def test_a_table_without_rows_is_empty(tmp_path: Path, content: str) -> None:
    file = write(tmp_path / "rows.json", content)
    assert refused(file) == f"{file}: the file is empty"


def test_an_object_with_several_lists_is_refused_with_their_names(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.json", json.dumps({"train": ROWS, "test": ROWS}))
    message = "is an object with several lists of rows ('train', 'test'); save the list to use as a file of its own"
    assert refused(file) == f"{file}: {message}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Excel workbook (.xls); save it as .xlsx"),
        ("rows.jsonl", b"\x28\xb5\x2f\xfd1234", "is compressed with zstd; decompress it, or compress it with gzip"),
        ("rows.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS; run `git lfs pull`"),
        ("rows.csv", b"<!DOCTYPE html><html>", "is a web page; download the file itself"),
        ("rows.csv", "a,b\n1,2\n".encode("utf-16-le"), "is UTF-16 without a byte order mark; save the file as UTF-8"),
        ("rows.csv", "a,b\n1,2\n".encode("utf-16-be"), "is UTF-16 without a byte order mark; save the file as UTF-8"),
        ("rows.csv", "a,b\n1,2\n".encode("utf-16")[:-1], "not UTF-16 (truncated data); save the file as UTF-8"),
        ("rows.xlsx", b"PK\x03\x04nothing", "not readable as xlsx (File is not a zip file); save the file again"),
        ("rows.xlsx", b"nothing", "not readable as xlsx (File is not a zip file); save the file again"),
        ("rows.jsonl.gz", gzip.compress(LINES.encode() * 9999, mtime=0)[:-20], "not readable as gzip"),
        ("rows.parquet.gz", gzip.compress(b"PAR1 and more", mtime=0)[:-20], "not readable as gzip"),
    ],
)
def test_what_is_not_a_file_of_rows_is_said_with_the_cure(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    file = write(tmp_path / name, content)
    assert refused(file).startswith(f"{file}: {message}")


def test_a_zip_archive_is_named(tmp_path: Path) -> None:
    write(tmp_path / "folder" / "rows.csv", CSV)
    shutil.make_archive(str(tmp_path / "rows"), "zip", tmp_path / "folder")
    file = str((tmp_path / "rows.zip").rename(tmp_path / "rows.csv"))
    assert refused(file) == f"{file}: is a zip archive; unpack it, or compress the file with gzip"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl"):
        write(tmp_path / "own" / name, json.dumps({"phrase": name}) + "\n")
    for name in ("README.md", ".hidden.jsonl", "_SUCCESS", "._a.jsonl"):
        write(tmp_path / "own" / name, "not rows")
    return tmp_path / "own"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("", ["a.jsonl", "b.jsonl"]),
        ("/*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("/[b-z].*", ["b.jsonl"]),
        ("/**/*.jsonl", ["a.jsonl", "b.jsonl", "deep/c.jsonl"]),
        ("/a.jsonl", ["a.jsonl"]),
    ],
)
def test_a_folder_or_a_pattern_names_files_in_order(folder: Path, pattern: str, names: list[str]) -> None:
    assert [row["phrase"] for row in values(f"{folder}{pattern}")] == names
    assert next(read_files([f"{folder}{pattern}"])).source == f"{folder / names[0]} row 1"


def test_a_pattern_without_files_is_refused(folder: Path) -> None:
    assert refused(f"{folder}/*.csv") == f"{folder}/*.csv: no file matches this pattern (data.files)"
    assert find_files(str(folder / "a.jsonl")) == [folder / "a.jsonl"]


@pytest.fixture
def labelled() -> datasets.Dataset:
    features = datasets.Features({"phrase": datasets.Value("string"), "tone": datasets.ClassLabel(names=["neg", "pos"])})
    return datasets.Dataset.from_dict({"phrase": ["x", "y", "z"], "tone": [1, 0, None]}, features)


LABELLED = [{"phrase": "x", "tone": "pos"}, {"phrase": "y", "tone": "neg"}, {"phrase": "z", "tone": None}]


def test_labels_are_their_names(tmp_path: Path, labelled: datasets.Dataset) -> None:
    labelled.to_parquet(tmp_path / "rows.parquet")
    assert values(str(tmp_path / "rows.parquet")) == LABELLED
    labelled.save_to_disk(tmp_path / "saved")
    assert values(str(tmp_path / "saved")) == LABELLED
    assert [row.values for row in read_hub(str(tmp_path / "saved"), None, None, "train")] == LABELLED


def test_a_saved_dataset_with_splits_is_read_by_split(tmp_path: Path, labelled: datasets.Dataset) -> None:
    datasets.DatasetDict({"train": labelled, "test": labelled.select([0])}).save_to_disk(tmp_path / "saved")
    assert refused(str(tmp_path / "saved")) == (
        f"{tmp_path}/saved: has several splits; name the folder of one of them: {tmp_path}/saved/train, {tmp_path}/saved/test"
    )
    assert values(str(tmp_path / "saved" / "test")) == LABELLED[:1]
    assert [row.values for row in read_hub(str(tmp_path / "saved"), None, None, "test")] == LABELLED[:1]


def test_a_damaged_saved_dataset_is_named(tmp_path: Path) -> None:
    write(tmp_path / "saved" / "state.json", "{}")
    assert re.match(rf"{tmp_path}/saved: not readable with load_from_disk", refused(str(tmp_path / "saved")))
