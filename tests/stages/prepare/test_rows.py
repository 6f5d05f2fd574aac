"""Raw rows: what a file says, in its order, and errors that say where."""

import csv
import json
import os
import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from stages.prepare.rows import Row, read_files, read_hub
from tunepress.core.errors import InputError
from tunepress.text.template import Number

ROWS: list[dict[str, Any]] = [
    {"phrase": "Süße Grüße, 東京 😀", "tone": "joy", "score": 3},
    {"phrase": 'He said "no",\nand left', "tone": "sadness", "score": -7},
]
COLUMNS = ("phrase", "tone", "score")


def write(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8", newline="")
    return str(path)


def texts(rows: Iterable[Row], *columns: str) -> list[dict[str, str]]:
    return [{column: row.text(column) for column in columns} for row in rows]


def values(file: str, *columns: str) -> list[dict[str, str]]:
    return texts(read_files([file]), *columns)


def column(file: str, name: str = "phrase") -> list[str]:
    return [row[name] for row in values(file, name)]


def refused(*files: str, columns: tuple[str, ...] = ("a",)) -> str:
    with pytest.raises(InputError) as raised:
        texts(read_files(list(files)), *columns)
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
def test_every_kind_of_file_gives_the_same_rows_of_text(files: dict[str, str], kind: str) -> None:
    rows = list(read_files([files[kind]]))
    assert texts(rows, *COLUMNS) == [{**row, "score": str(row["score"])} for row in ROWS]
    assert [row.source for row in rows] == [f"{files[kind]} row 1", f"{files[kind]} row 2"]


def test_several_files_are_read_in_the_order_of_their_names(files: dict[str, str]) -> None:
    chosen = [files["parquet"], files["csv"], files["parquet"]]
    assert [row.source.rsplit(" row ")[0] for row in read_files(chosen)] == [file for file in chosen for _ in ROWS]


def test_no_files_are_no_rows() -> None:
    assert list(read_files([])) == []


@pytest.mark.parametrize("phrase", ["a\u2028b", "a\x85b", "tab\tand\\slash", "e\u0301", " spaces ", "nul\x00"])
def test_a_phrase_comes_back_character_by_character(tmp_path: Path, phrase: str) -> None:
    for ascii_only in (True, False):
        line = json.dumps({"phrase": phrase}, ensure_ascii=ascii_only)
        assert column(write(tmp_path / "rows.jsonl", line + "\n" + '{"phrase": "next"}')) == [phrase, "next"]


TEXTS = ["2024-01-31", "2024-01-31T10:00:00Z", "12:30:00", "007", "1e5", "true", "TRUE", "19.90", "+49301234", "01234", " 1 "]
WORDS = ["NA", "null", "None", "nan", "n/a", "N/A", "inf", ""]


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_text_that_looks_like_a_date_or_number_stays_text_in_json(tmp_path: Path, suffix: str) -> None:
    rows = [{"phrase": text} for text in TEXTS + WORDS]
    content = json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows))
    assert column(write(tmp_path / f"rows{suffix}", content)) == TEXTS + WORDS


def table(path: Path, *columns: list[str], heads: tuple[str, ...] = ("phrase", "tone")) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([heads, *zip(*columns, strict=True)])
    return str(path)


@pytest.mark.parametrize("text", TEXTS + WORDS)
def test_a_cell_of_csv_is_what_is_written_there_whatever_the_others_are(tmp_path: Path, text: str) -> None:
    alone = table(tmp_path / "alone.csv", [text] * 3, ["joy"] * 3)
    assert column(alone) == [text] * 3
    among = table(tmp_path / "among.csv", ["1", text, "word", "", text], ["joy"] * 5)
    assert column(among) == ["1", text, "word", "", text]


def test_a_row_of_empty_cells_changes_no_other_row(tmp_path: Path) -> None:
    written = ["01000", "19.90", "+49301234", "TRUE"]
    for rows in ([written] * 2, [written, [""] * 4, written]):
        file = table(tmp_path / "rows.csv", *map(list, zip(*rows, strict=True)), heads=("a", "b", "c", "d"))
        assert [list(row.values()) for row in values(file, "a", "b", "c", "d")] == rows


@pytest.mark.parametrize("late", ["N/A", "0.50", "a word", "007", "000", "true"])
def test_a_late_cell_unlike_the_others_changes_none(tmp_path: Path, late: str) -> None:
    numbers = [str(number) for number in range(30_000)]
    for cells in ([*numbers, late], ["007", *["a text"] * 10_000, late]):
        file = table(tmp_path / "rows.csv", cells, ["joy"] * len(cells))
        rows = list(read_files([file]))
        assert [row.values["phrase"] for row in rows] == cells
        assert rows[-1].source == f"{file} row {len(cells)}"
        assert len(column(file, "tone")) == len(cells)  # where the template does not use the column, it does not matter either


def test_quotes_line_breaks_and_long_cells_of_csv_come_back(tmp_path: Path) -> None:
    cells = ['a "b"', "a\nb", "a\r\nb", "a,b;c\td", "\u2028", "x" * 200_000, "'", "nul\0"]
    assert column(table(tmp_path / "rows.csv", cells, ["joy"] * len(cells))) == cells


def test_a_csv_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    content = "\ufeffphrase,tone,,\r\n\r\none,joy,,\r\n\r\ntwo,fear\r\n"
    assert values(write(tmp_path / "rows.csv", content), "phrase", "tone") == [
        {"phrase": "one", "tone": "joy"},
        {"phrase": "two", "tone": "fear"},
    ]


def test_a_number_of_json_is_the_text_that_the_file_has(tmp_path: Path) -> None:
    numbers = ["1.50", "1e5", "-0", "0.1", "12345678901234567890", "1E400", "true", "false"]
    for name, content in (
        ("rows.json", ",".join(f'{{"phrase": {number}}}' for number in numbers).join("[]")),
        ("rows.jsonl", "\n".join(f'{{"phrase": {number}}}' for number in numbers)),
    ):
        assert column(write(tmp_path / name, content)) == numbers


def parquet(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_values_of_parquet_are_text_where_they_have_one(tmp_path: Path) -> None:
    for values_, texts in (
        ([b"joy", "Grüße".encode()], ["joy", "Grüße"]),
        ([7, -1], ["7", "-1"]),
        ([0.5, 1.0], ["0.5", "1.0"]),
        (pa.array([19.9, 0.1], pa.float32()), ["19.9", "0.1"]),
        ([True, False], ["true", "false"]),
        ([Decimal("19.90"), Decimal("0.05")], ["19.90", "0.05"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array(["007", "1e5"], pa.large_string()), ["007", "1e5"]),
    ):
        assert column(parquet(tmp_path / "rows.parquet", phrase=values_)) == texts


BAD_JSON = [
    ("[1, 2]", "a list"),
    ('{"k": 1}', "an object"),
    ("[]", "a list"),
    ("NaN", "NaN"),
    ("Infinity", "Infinity"),
    ("-Infinity", "-Infinity"),
    ("null", "null"),
    ('"cut \\ud83d"', "half a surrogate pair (\\ud83d)"),
    ('"\\ude00 cut"', "half a surrogate pair (\\ude00)"),
]


@pytest.mark.parametrize(("value", "kind"), BAD_JSON)
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_json_that_is_no_text_is_named_with_row_column_kind_and_cure_where_it_is_used(
    tmp_path: Path, suffix: str, value: str, kind: str
) -> None:
    rows = ['{"phrase": "x", "tone": "joy"}', f'{{"phrase": {value}, "tone": "joy"}}']
    file = write(tmp_path / f"rows.{suffix}", ",".join(rows).join("[]") if suffix == "json" else "\n".join(rows))
    message = refused(file, columns=("tone", "phrase"))
    assert message.startswith(f"{file} row 2: column 'phrase' holds {kind}")
    assert message.isascii()
    assert re.search(r"[;,] (write|join|fill) ", message)
    assert column(file, "tone") == ["joy", "joy"]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([b"joy", b"sch\xf6n"], "bytes that are not UTF-8; store text"),
        (pa.array([b"joy", b"sch\xf6n"]).cast(pa.string(), safe=False), "bytes that are not UTF-8; store text"),
        ([["a"], ["b", "c"]], "a list; "),
        ([{"k": 1}, {"k": 2}], "an object; "),
        ([1.0, float("nan")], "NaN; "),
        (pa.array([1.0, float("-inf")]), "-Infinity; "),
        (["joy", None], "null; "),
        (pa.nulls(2), "null; "),
        ([datetime(2024, 1, 31), None], "a value of the type datetime; store it as text"),
    ],
)
def test_parquet_that_is_no_text_is_named_where_it_is_used(tmp_path: Path, cells: Any, kind: str) -> None:
    file = parquet(tmp_path / "rows.parquet", phrase=cells, tone=["joy", "fear"])
    message = refused(file, columns=("phrase", "tone"))
    assert re.match(rf"{re.escape(file)} row [12]: column 'phrase' holds {re.escape(kind)}", message)
    assert column(file, "tone") == ["joy", "fear"]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        file = parquet(tmp_path / name, text=["x"], tone=["joy"])
    else:
        file = write(tmp_path / name, "text,tone\nx,joy\n" if name.endswith("csv") else '{"text": "x", "tone": "joy"}')
    expected = f"{file} row 1: no column 'phrase', which data.text_template names; there are: text, tone"
    assert refused(file, columns=("tone", "phrase")) == expected


def test_a_column_that_only_some_rows_have_is_missing_in_the_others(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", '{"a": "x"}\n{"\\ud83d": "y"}\n')
    assert refused(file) == f"{file} row 2: no column 'a', which data.text_template names; there are: \\ud83d"
    short = write(tmp_path / "rows.csv", "a,b\n1,2\n3\n")
    assert column(short, "a") == ["1", "3"]
    assert refused(short, columns=("b",)) == f"{short} row 2 (line 3): 1 cells, but the header has 2; write empty cells too"


def test_two_columns_of_one_name_are_named_where_they_are_used(tmp_path: Path) -> None:
    twice = write(tmp_path / "rows.csv", "a,b,a\n1,2,3\n")
    assert "2 columns are called 'a'" in refused(twice)
    assert column(twice, "b") == ["2"]
    stored = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["1"]), pa.array(["2"]), pa.array(["3"])], names=["a", "b", "a"]), stored)
    assert "2 columns are called 'a'" in refused(str(stored))
    assert column(str(stored), "b") == ["2"]


def test_a_column_of_parquet_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    file = parquet(tmp_path / "rows.parquet", **{"a.b": ["1"], "a": [{"b": "2"}], "c": ["3"]})
    assert values(file, "c", "a.b") == [{"c": "3", "a.b": "1"}]


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("middle.jsonl", '{"a": 1}\n{"a": 2\n{"a": 3}\n', "middle.jsonl line 2: not JSON"),
        ("after_blank.jsonl", '{"a": 1}\n\n{"a": nope}\n', "after_blank.jsonl line 3: not JSON"),
        ("last.jsonl", '{"a": 1}\n{"a": 2}\n{"a":', "last.jsonl line 3: not JSON"),
        ("separator.jsonl", '{"a": "x\u2028y"}\n{"a"}\n', "separator.jsonl line 2: not JSON"),
        ("number.jsonl", '{"a": 1}\n3\n', "number.jsonl line 2: a row must be a JSON object, with"),
        ("words.jsonl", "plain words\n", "words.jsonl line 1: not JSON"),
        ("array.json", '[{"a": 1},\n {"a": 2}\n {"a": 3}]', "array.json line 3: not JSON"),
        ("unclosed.json", '[{"a": 1},\n {"a": 2}\n', "unclosed.json line 3: not JSON"),
        ("comma.json", '[\n{"a": 1},\n]', "comma.json line "),
        ("scalars.json", "[1, 2]", "scalars.json row 1: a row must be a JSON object"),
    ],
)
def test_broken_json_is_named_with_its_file_and_line(tmp_path: Path, name: str, content: str, where: str) -> None:
    assert where in refused(write(tmp_path / name, content))


def test_a_broken_file_is_named_among_good_ones(tmp_path: Path, files: dict[str, str]) -> None:
    broken = write(tmp_path / "broken.jsonl", '{"phrase": 1}\n{\n')
    assert refused(files["csv"], broken, files["json"], columns=("phrase",)).startswith(f"{broken} line 2: ")


@pytest.mark.parametrize("name", ["latin.jsonl", "latin.json", "latin.csv"])
def test_a_file_that_is_not_utf8_is_named_with_the_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"a": "x"}\n' * 50_000 + '{"a": "schön"}\n'.encode("latin-1"))
    message = refused(str(tmp_path / name), columns=('{"a": "x"}' if name.endswith("csv") else "a",))
    assert message.startswith(f"{tmp_path / name} line 50001: not UTF-8 (byte 550010)")


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("a,b\n1,2\n1,2,3\n", "row 2 (line 3): 3 cells, but the header has 2; "),
        ('a,b\n"1\n",2\n"x" y,2\n', "row 2 (line 4): not CSV ("),
        ('a,b\n1,2\n"never closed,2\n3,4\n', "row 2 (line 4): not CSV ("),
    ],
)
def test_broken_csv_is_named_with_its_row_and_line(tmp_path: Path, content: str, where: str) -> None:
    file = write(tmp_path / "rows.csv", content)
    assert refused(file).startswith(f"{file} {where}")


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_json_that_is_nested_too_deeply_is_named(tmp_path: Path, suffix: str) -> None:
    row = f'{{"a": "x", "b": {"[" * 100_000}{"]" * 100_000}}}'
    file = write(tmp_path / f"rows.{suffix}", f"[{row}]" if suffix == "json" else f'{{"a": "x"}}\n{row}')
    assert refused(file).startswith(f"{file}: lists" if suffix == "json" else f"{file} line 2: lists")


@pytest.mark.parametrize("content", [b"nope", b"PAR1 not at all PAR1"])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.parquet").write_bytes(content)
    refused(str(tmp_path / "rows.parquet"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in refused(str(tmp_path / "absent.jsonl"))


def test_a_folder_without_files_of_rows_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    write(tmp_path / "folder.jsonl" / "README.md", "# no rows")
    assert "no files of rows are in this folder" in refused(str(tmp_path / "folder.jsonl"))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"])
def test_an_empty_file_is_named(tmp_path: Path, name: str) -> None:
    assert "empty" in refused(write(tmp_path / name, ""))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("blank.jsonl", " \n\n"),
        ("none.json", "[]"),
        ("heading.csv", "phrase,tone\n"),
        ("lines.csv", "\n\n"),
        ("bom.csv", "\ufeff"),
    ],
)
def test_a_file_without_a_row_is_empty(tmp_path: Path, name: str, content: str) -> None:
    file = write(tmp_path / name, content)
    assert refused(file) == f"{file}: the file is empty"


@pytest.mark.parametrize("kind", [pa.string(), pa.null()])
def test_parquet_without_a_row_is_empty(tmp_path: Path, kind: Any) -> None:
    file = parquet(tmp_path / "rows.parquet", a=pa.array([], kind))
    assert refused(file) == f"{file}: the file is empty"


def test_a_parquet_file_that_breaks_off_is_named(tmp_path: Path) -> None:
    file = parquet(tmp_path / "rows.parquet", a=[f"a text number {number}" for number in range(50_000)])
    content = bytearray(Path(file).read_bytes())
    content[100:50_000] = bytes(49_900)
    Path(file).write_bytes(content)
    assert refused(file).startswith(f"{file}: not readable as parquet (")


@pytest.mark.parametrize("name", ["rows.txt", "rows", "rows.xls", "rows.txt.gz", "rows.jsonl.zip"])
def test_an_unknown_kind_of_file_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    message = refused(write(tmp_path / name, '{"a": 1}\n'))
    assert all(kind in message for kind in (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".xlsx", ".gz"))


@pytest.mark.parametrize("name", ["rows[1].jsonl", "rows*.jsonl", "a b {c}?.jsonl"])
def test_a_name_with_pattern_characters_is_one_file(tmp_path: Path, name: str) -> None:
    write(tmp_path / "rows1.jsonl", '{"a": "other"}\n')
    write(tmp_path / "rows2.jsonl", '{"a": "other"}\n')
    assert column(write(tmp_path / name, '{"a": "this"}\n'), "a") == ["this"]


def test_an_edit_that_keeps_size_and_time_is_read_anew(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", '{"a": "old"}\n')
    times = (Path(file).stat().st_atime_ns, Path(file).stat().st_mtime_ns)
    assert column(file, "a") == ["old"]
    write(Path(file), '{"a": "new"}\n')
    os.utime(file, ns=times)
    assert column(file, "a") == ["new"]


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
    assert texts(read_hub(dataset, None, None, "train"), "phrase") == [{"phrase": "to learn"}]
    rows = list(read_hub(dataset, None, None, "test"))
    assert texts(rows, "phrase") == [{"phrase": "to ask"}]
    assert rows[0].source == f"{dataset} row 1"


@pytest.mark.parametrize("split", [None, "holdout"])
def test_a_dataset_without_the_split_is_named(dataset: str, split: str | None) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as raised:
        read_hub(dataset, None, None, split)
    assert dataset in str(raised.value)


@pytest.mark.parametrize("revision", [None, "", "main", "v1.0", "abc123"])
def test_a_hub_dataset_needs_a_commit(revision: str | None) -> None:
    with pytest.raises(InputError, match=r"^data\.revision: must be a commit"):
        read_hub("nobody/no-such-dataset", None, revision, "train")


def test_forty_letters_are_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"^data\.revision: "):
        read_hub("nobody/no-such-dataset", None, "a-branch-with-a-name-of-forty-characters", "train")


def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str) -> str:
    """A local dataset folder of one split."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "own").mkdir()
    write(tmp_path / "own" / name, content)
    return str(tmp_path / "own")


def test_a_dataset_of_csv_keeps_its_text_and_an_unused_column_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*TEXTS, "NA", "null"]
    rows = [f"{text},{number}" for number, text in enumerate(texts)]
    more = [f"1,{number}" for number in range(20_000)]
    content = "\n".join(["phrase,other", *rows, *more, "007,word", "true,2"])
    folder = in_folder(tmp_path, monkeypatch, "train.csv", content)
    actual = list(read_hub(folder, None, None, "train"))
    assert [row.values["phrase"] for row in actual] == [*texts, *["1"] * 20_000, "007", "true"]
    assert actual[-1].source == f"{folder} row {len(actual)}"


@pytest.mark.parametrize(("value", "kind"), [("[1, 2]", "a list"), ('{"k": 1}', "an object"), ("null", "null")])
def test_a_dataset_that_holds_no_text_is_named_where_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, kind: str
) -> None:
    content = "".join(f'{{"phrase": {value}, "tone": "joy"}}\n' for _ in range(3))
    folder = in_folder(tmp_path, monkeypatch, "train.jsonl", content)
    with pytest.raises(InputError, match=rf"^{re.escape(folder)} row 1: column 'phrase' holds {kind}; "):
        texts(read_hub(folder, None, None, "train"), "phrase")
    assert [row.text("tone") for row in read_hub(folder, None, None, "train")] == ["joy"] * 3
    with pytest.raises(InputError, match=r"row 1: no column 'mood', .* there are: phrase, tone$"):
        texts(read_hub(folder, None, None, "train"), "tone", "mood")


def test_a_dataset_of_json_keeps_its_text_or_says_what_it_cannot_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"phrase": text, "mixed": mixed, "day": "2024-01-31"} for text, mixed in (("007", "007"), ("1e5", 1), ("NaN", "x"))]
    folder = in_folder(tmp_path, monkeypatch, "train.jsonl", "\n".join(map(json.dumps, rows)))
    columns = ("phrase", "mixed", "day")
    assert texts(read_hub(folder, None, None, "train"), *columns) == [{**row, "mixed": str(row["mixed"])} for row in rows]
    monkeypatch.setattr("stages.prepare.hub.plain_files", lambda builder, split: [])  # as for what only the library can read
    assert [row.text("phrase") for row in read_hub(folder, None, None, "train")] == ["007", "1e5", "NaN"]
    with pytest.raises(InputError, match=r"column 'mixed' holds several types, and .* name them in data\.files$"):
        texts(read_hub(folder, None, None, "train"), "mixed")
    with pytest.raises(InputError, match=r" row 1: column 'day' holds a value of the type datetime; store it as text$"):
        texts(read_hub(folder, None, None, "train"), "day")


def test_all_columns_are_read_with_their_raw_values(tmp_path: Path) -> None:
    row = '{"text": "x", "list": [{"content": "y", "weight": 0}], "none": null, "yes": true, "number": 1.50, "at": {"a": 1e5}}'
    expected = {
        "text": "x",
        "list": [{"content": "y", "weight": "0"}],
        "none": None,
        "yes": True,
        "number": "1.50",
        "at": {"a": "1e5"},
    }
    (read,) = read_files([write(tmp_path / "rows.jsonl", row)])
    assert read.values == expected
    numbers = (read.values["number"], read.values["list"][0]["weight"], read.values["at"]["a"])
    assert all(isinstance(number, Number) for number in numbers)
    assert not isinstance(read.values["text"], Number)
    stored = parquet(tmp_path / "rows.parquet", chat=[[{"role": "user", "content": "y"}]], number=[1.5], none=pa.nulls(1))
    assert next(read_files([stored])).values == {"chat": [{"role": "user", "content": "y"}], "number": 1.5, "none": None}
