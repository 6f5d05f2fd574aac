"""prepare: what is counted, what is refused and in which words, and what a failed run leaves."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError
from tokenizers import processors

from stages.prepare.cleaning import fit, measured
from stages.prepare.formats import TemplateRows
from stages.prepare.rows import Row
from stages.prepare.split import overlap
from stages.prepare.stage import Config, describe_caps, in_sequences, main, prepare
from tests.command import run_module
from tests.stages.params import CPU
from tunepress.config import checks
from tunepress.config.data import CorpusStrategy, Data, Overlong
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl, write_jsonl
from tunepress.models.hf_model import load_encoder, load_tokenizer
from tunepress.text.packing import Corpus
from tunepress.text.prompt import Prompt
from tunepress.text.segments import Turn, context, last_turn, learned
from tunepress.text.tokenizer import Encoder

TONES = ["joy", "sadness", "fear", "surprise"]
Splits = dict[str, list[dict[str, Any]]]
Prepared = tuple[Splits, dict[str, Any]]


REASONS = (
    "duplicates",
    "conflicting_labels",
    "near_duplicates",
    "overlong",
    "max_samples",
    "max_validation_samples",
    "max_test_samples",
)
UNCUT = dict.fromkeys(REASONS, 0)
SETTINGS = {"eval_dataset_size": 0.1, "test_size": 0.2, "source_max_len": 256}  # whatever conf/ recommends


def phrases(each: int, about: str = "number") -> list[dict[str, Any]]:
    return [{"phrase": f"{about} {number} of {tone}", "tone": tone} for number in range(each) for tone in TONES]


@pytest.fixture(scope="session")
def encoder(tiny_phi3: Path) -> Encoder:
    return load_encoder(tiny_phi3)


@pytest.fixture
def data(root: Path, tmp_path: Path) -> Data:
    """conf/data/tone.yaml, over forty phrases of its own."""
    chosen = OmegaConf.merge(OmegaConf.structured(Data), OmegaConf.load(root / "conf/data/tone.yaml"), SETTINGS)
    chosen.files = [str(tmp_path / "tone.jsonl")]
    write_jsonl(tmp_path / "tone.jsonl", phrases(10))
    section = OmegaConf.to_object(chosen)
    assert isinstance(section, Data)
    return section


@pytest.fixture
def run(encoder: Encoder) -> Callable[[Data], Prepared]:
    return lambda data: prepare(data, 0, encoder)[1:]


@pytest.fixture
def refused(run: Callable[[Data], Prepared]) -> Callable[[Data], str]:
    """Prepares in vain, and gives the one line that says why."""

    def message(data: Data) -> str:
        with pytest.raises(InputError) as raised:
            run(data)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    return message


def make_prompt(data: Data, encoder: Encoder) -> Prompt:
    return TemplateRows(data, data.text_template, data.completion_column, encoder).prompt()


def token_count(row: dict[str, Any], encoder: Encoder) -> int:
    return sum(map(len, encoder.encode_segments([row])[0]))


def of_lengths(*lengths: int) -> list[dict[str, Any]]:
    """Rows with prompts of so many letters and the answer joy: four tokens more, with the one for the end."""
    segments = [[context("p" * length), learned("joy", "joy")] for length in lengths]
    return [{"source": str(number), "segments": parts} for number, parts in enumerate(segments)]


def turn_of(row: dict[str, Any]) -> Turn:
    assert [segment["train"] for segment in row["segments"]] == [False, True]
    return last_turn(row)


def rewrite(data: Data, rows: list[dict[str, Any]]) -> str:
    write_jsonl(Path(data.files[0]), rows)
    return data.files[0]


def test_rows_become_prompts_and_completions_that_make_up_the_template(data: Data, run: Callable[[Data], Prepared]) -> None:
    splits, metrics = run(data)
    rows = [row for members in splits.values() for row in members]
    assert {(turn.prompt, turn.completion, turn.expected) for turn in map(turn_of, rows)} == {
        (f"### Text: {row['phrase']}\n### The tone is:\n", row["tone"], row["tone"]) for row in phrases(10)
    }
    assert {row["source"] for row in rows} == {f"{data.files[0]} row {number}" for number in range(1, 41)}
    assert metrics["splits"] == {"train": 28, "validation": 4, "test": 8}
    assert metrics["labels"] == dict.fromkeys(sorted(TONES), 10)


def test_an_answer_that_does_not_match_the_schema_is_dropped_counted_and_reported(
    data: Data, run: Callable[[Data], Prepared], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = {"type": "object", "properties": {"tone": {"enum": TONES}}, "required": ["tone"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    rows = [{**row, "tone": json.dumps({"tone": row["tone"]})} for row in phrases(10)]
    wrong = ['{"tone": "envy"}', "joy", '{"tone": "joy"', '{"tone": "joy", "x": NaN}', "[]", "{}", "1"]
    file = rewrite(data, [*rows, *({"phrase": f"wrong {number}", "tone": answer} for number, answer in enumerate(wrong))])
    chosen = replace(data, labels=None, json_schema=str(tmp_path / "schema.json"))
    splits, metrics = run(chosen)
    assert metrics["rows"] == 47
    assert metrics["dropped"] == {"json_schema": 7} | UNCUT
    assert sum(map(len, splits.values())) == 40
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"prepare: {file} row 41: dropped, its answer does not match data.json_schema ($.tone: 'envy'")
    assert printed[1].startswith(f"prepare: {file} row 42: dropped, its answer is not JSON (")
    assert printed[-1] == "prepare: 7 rows in all do not match data.json_schema"
    assert len(printed) == 6
    assert "json_schema" not in run(replace(data, labels=None))[1]["dropped"]


def test_no_answer_that_matches_the_schema_is_an_error(data: Data, refused: Callable[[Data], str], tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object"}', encoding="utf-8")
    assert "because of data.json_schema" in refused(replace(data, labels=None, json_schema=str(tmp_path / "schema.json")))


def test_the_schema_travels_in_the_prompt(data: Data, encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "string"}', encoding="utf-8")
    rewrite(data, [{**row, "tone": json.dumps(row["tone"])} for row in phrases(10)])
    chosen = replace(data, labels=None, json_schema=str(tmp_path / "schema.json"))
    assert prepare(chosen, 0, encoder)[0].json_schema == {"type": "string"}
    assert prepare(replace(chosen, json_schema=None), 0, encoder)[0].json_schema is None


def test_what_is_left_out_is_counted(data: Data, run: Callable[[Data], Prepared]) -> None:
    extra = [
        {"phrase": "NUMBER 0 of joy ", "tone": "joy"},
        {"phrase": "number 0 of joy", "tone": "joy"},
        {"phrase": "either way", "tone": "joy"},
        {"phrase": "Either way", "tone": "joy"},
        {"phrase": "EITHER WAY", "tone": "fear"},
        {"phrase": "so long " * 40, "tone": "fear"},
    ]
    rewrite(data, phrases(10) + extra)
    splits, metrics = run(data)
    assert metrics["rows"] == 46
    assert metrics["dropped"] == UNCUT | {"duplicates": 2, "conflicting_labels": 3, "overlong": 1}
    assert metrics["truncated"] == 0
    assert metrics["overlap_between_splits"] == 0
    assert sum(metrics["splits"].values()) + sum(metrics["dropped"].values()) == metrics["rows"]
    kept = " ".join(part["text"].casefold() for members in splits.values() for row in members for part in row["segments"])
    assert "either" not in kept
    assert "so long" not in kept


def test_a_dropped_contradiction_is_named(
    data: Data, run: Callable[[Data], Prepared], capsys: pytest.CaptureFixture[str]
) -> None:
    file = rewrite(data, [*phrases(10), {"phrase": "both", "tone": "joy"}, {"phrase": "Both", "tone": "fear"}])
    run(data)
    error_text = capsys.readouterr().out.splitlines()
    assert [line.split(": dropped")[0] for line in error_text] == [f"prepare: {file} row 41", f"prepare: {file} row 42"]


def test_token_figures_are_those_of_the_kept_rows(data: Data, run: Callable[[Data], Prepared], encoder: Encoder) -> None:
    splits, metrics = run(data)
    lengths = sorted(token_count(row, encoder) for members in splits.values() for row in members)
    # the byte tokenizer: a token a byte, and one for the end
    assert lengths == sorted(len(f"### Text: {row['phrase']}\n### The tone is:\n{row['tone']}") + 1 for row in phrases(10))
    assert metrics["tokens"] == {
        "min": lengths[0],
        "median": (lengths[19] + lengths[20]) / 2,
        "max": lengths[-1],
        "sum": sum(lengths),
    }


def test_truncate_keeps_and_counts_the_rows_whose_prompt_fits(data: Data, run: Callable[[Data], Prepared]) -> None:
    # rows of 47 (joy), 49 (fear), 55 (sadness) and 57 tokens (surprise), of which the last 4, 5, 8 and 9 are the answer
    shorter = replace(data, source_max_len=48)
    assert run_counts(run, replace(shorter, labels=None)) == (30, 0)
    assert run_counts(run, replace(shorter, labels=None, overlong=Overlong.truncate)) == (10, 20)


def run_counts(run: Callable[[Data], Prepared], data: Data) -> tuple[int, int]:
    _, metrics = run(data)
    return metrics["dropped"]["overlong"], metrics["truncated"]


@pytest.mark.parametrize(
    ("limit", "overlong", "kept", "dropped", "truncated"),
    [
        (14, Overlong.drop, 2, 0, 0),
        (13, Overlong.drop, 1, 1, 0),
        (13, Overlong.truncate, 2, 0, 1),
        (11, Overlong.truncate, 2, 0, 1),
        (10, Overlong.truncate, 1, 1, 0),  # nothing of the answer is left to learn
    ],
)
def test_a_row_fits_where_its_tokens_do(
    data: Data, encoder: Encoder, limit: int, overlong: Overlong, kept: int, dropped: int, truncated: int
) -> None:
    chosen = replace(data, source_max_len=limit, overlong=overlong)
    fitting, *counts = fit(list(measured(of_lengths(10, 5), chosen, encoder)), chosen)  # 14 and 9 tokens
    assert (len(fitting), *counts) == (kept, dropped, truncated)


def test_test_files_are_the_test_split_and_nothing_else(data: Data, tmp_path: Path, run: Callable[[Data], Prepared]) -> None:
    held_out = [*phrases(3, "held out"), {"phrase": "Held out 0 of joy", "tone": "joy"}, {"phrase": "wordy " * 60, "tone": "joy"}]
    write_jsonl(tmp_path / "test.jsonl", held_out)
    splits, metrics = run(replace(data, test_files=[str(tmp_path / "test.jsonl")]))
    assert [row["source"] for row in splits["test"]] == [f"{tmp_path / 'test.jsonl'} row {number}" for number in range(1, 13)]
    assert metrics["splits"] == {"train": 36, "validation": 4, "test": 12}
    assert metrics["rows"] == 54
    assert metrics["dropped"] == UNCUT | {"duplicates": 1, "overlong": 1}


def test_truncated_test_rows_are_counted_too(data: Data, tmp_path: Path, run: Callable[[Data], Prepared]) -> None:
    write_jsonl(tmp_path / "test.jsonl", [{"phrase": "p" * 20, "tone": "surprise"}])
    chosen = replace(data, test_files=[str(tmp_path / "test.jsonl")], source_max_len=58, overlong=Overlong.truncate)
    assert run(chosen)[1]["truncated"] == 0
    write_jsonl(tmp_path / "test.jsonl", [{"phrase": "p" * 25, "tone": "surprise"}])
    splits, metrics = run(chosen)
    assert (metrics["truncated"], metrics["dropped"]["overlong"], len(splits["test"])) == (1, 0, 1)


def test_near_duplicates_of_training_rows_are_dropped_from_the_test_rows(
    data: Data, tmp_path: Path, run: Callable[[Data], Prepared], capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "the bread came out with a proper crust and the whole flat smells like a bakery"
    rewrite(data, [*phrases(10), {"phrase": sentence, "tone": "joy"}])
    write_jsonl(tmp_path / "test.jsonl", [*phrases(3, "held out"), {"phrase": f"{sentence} today!", "tone": "joy"}])
    chosen = replace(data, test_files=[str(tmp_path / "test.jsonl")], eval_dataset_size=0.0)
    assert run(chosen)[1]["splits"]["test"] == 13
    splits, metrics = run(replace(chosen, near_duplicates=0.8))
    assert metrics["dropped"] == UNCUT | {"near_duplicates": 1}
    assert metrics["splits"] == {"train": 41, "validation": 0, "test": 12}
    assert sum(metrics["splits"].values()) + sum(metrics["dropped"].values()) == metrics["rows"]
    assert [row["source"] for row in splits["test"]] == [f"{tmp_path / 'test.jsonl'} row {number}" for number in range(1, 13)]
    line = f"prepare: {tmp_path / 'test.jsonl'} row 13: dropped as a near duplicate of {data.files[0]} row 41 (similarity 0.9"
    assert line in capsys.readouterr().out


def test_a_validation_row_is_compared_with_the_training_rows_too(data: Data, run: Callable[[Data], Prepared]) -> None:
    texts = [hashlib.sha256(f"{number}".encode()).hexdigest() for number in range(60)]
    variants = [f"{text}{end}" for text in texts[:20] for end in ("a", "b", "c")]
    rewrite(data, [{"phrase": text, "tone": TONES[number % 4]} for number, text in enumerate([*texts, *variants])])
    chosen = replace(data, near_duplicates=0.4, max_validation_samples=8, max_test_samples=12)
    splits, metrics = run(chosen)
    assert metrics["dropped"]["max_validation_samples"] == 4
    assert 0 < metrics["dropped"]["near_duplicates"] == 20 - len(splits["validation"]) - len(splits["test"])
    assert metrics["splits"] == {name: len(rows) for name, rows in splits.items()}
    cuts = ", validation cut from 12 to 8 (data.max_validation_samples), test cut from 24 to 12 (data.max_test_samples)"
    assert describe_caps(chosen, metrics) == cuts


@pytest.mark.parametrize("similarity", [0.0, 1.0, -0.5, 80.0, float("nan")])
def test_a_similarity_out_of_range_is_refused(data: Data, similarity: float) -> None:
    message = "data.near_duplicates: must be a similarity above 0 and below 1, or null, got "
    assert checks.problem({"data": replace(data, near_duplicates=similarity)}) == f"{message}{similarity}"


def test_test_files_that_lose_all_rows_are_not_made_up_for_from_the_others(
    data: Data, tmp_path: Path, refused: Callable[[Data], str]
) -> None:
    write_jsonl(tmp_path / "test.jsonl", [{"phrase": "both", "tone": "joy"}, {"phrase": "Both", "tone": "fear"}])
    assert "test" in refused(replace(data, test_files=[str(tmp_path / "test.jsonl")]))


def test_a_test_row_that_is_trained_on_is_named(data: Data, tmp_path: Path, refused: Callable[[Data], str]) -> None:
    write_jsonl(tmp_path / "test.jsonl", [*phrases(2, "held out"), {"phrase": " Number 3 of FEAR", "tone": "fear"}])
    message = refused(replace(data, test_files=[str(tmp_path / "test.jsonl")]))
    assert message.startswith(f"{tmp_path / 'test.jsonl'} row 9: ")
    assert "1 in all" in message


def test_several_answers_to_a_question_are_kept_and_split_together(data: Data, run: Callable[[Data], Prepared]) -> None:
    rewrite(data, [{"phrase": f"question {n % 20}", "tone": f"answer {n}"} for n in range(40)])
    splits, metrics = run(replace(data, labels=None))
    assert metrics["dropped"] == UNCUT
    assert metrics["splits"] == {"train": 28, "validation": 4, "test": 8}
    assert overlap(splits) == []


def test_no_prompt_stands_in_two_splits_of_many_like_rows(data: Data, run: Callable[[Data], Prepared]) -> None:
    rewrite(data, phrases(20) + [{**row, "phrase": row["phrase"].upper()} for row in phrases(20)])
    splits, metrics = run(data)
    assert overlap(splits) == []
    assert metrics["dropped"]["duplicates"] == 80


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"text": "x", "tone": "joy"}, ["'phrase'", "there are: ", "text"]),
        ({"phrase": "x"}, ["'tone'", "there are: phrase"]),
        ({"phrase": None, "tone": "joy"}, ["'phrase'"]),
        ({"phrase": "x", "tone": None}, ["'tone'"]),
        ({"phrase": "x", "tone": ""}, ["'tone'", "empty"]),
        ({"phrase": "x", "tone": " \n"}, ["'tone'", "empty"]),
        ({"phrase": "", "tone": "joy"}, ["'phrase'", "empty"]),
        ({"phrase": "\t ", "tone": "joy"}, ["'phrase'", "empty"]),
        ({"phrase": "x", "tone": "rage"}, ["'rage'", "data.labels", "joy, sadness, fear, surprise"]),
        ({"phrase": "x", "tone": "Joy"}, ["'Joy'", "data.labels"]),
        ({"phrase": "x", "tone": "joy\nfear"}, ["data.labels"]),
    ],
)
def test_a_bad_row_is_named_with_its_number_and_column(
    data: Data, refused: Callable[[Data], str], row: dict[str, Any], says: list[str]
) -> None:
    rows = phrases(10)
    file = rewrite(data, [*rows[:6], row, *rows[6:]])
    message = refused(data)
    assert message.startswith(f"{file} row 7: ")
    assert [word for word in says if word not in message] == []


def test_an_empty_cell_of_a_table_is_named(data: Data, tmp_path: Path, refused: Callable[[Data], str]) -> None:
    with (tmp_path / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["phrase", "tone"], ["one", "joy"], ["two", ""]])
    message = refused(replace(data, files=[str(tmp_path / "rows.csv")]))
    assert message.startswith(f"{tmp_path / 'rows.csv'} row 2: ")
    assert "'tone'" in message


def test_a_bad_row_of_the_test_file_is_named(data: Data, tmp_path: Path, refused: Callable[[Data], str]) -> None:
    write_jsonl(tmp_path / "test.jsonl", [{"phrase": "x", "tone": "joy"}, {"phrase": "y", "tone": "rage"}])
    message = refused(replace(data, test_files=[str(tmp_path / "test.jsonl")]))
    assert message.startswith(f"{tmp_path / 'test.jsonl'} row 2: label 'rage'")


@pytest.mark.parametrize(("first", "second"), [("01", "02"), ("1", "01"), ("true", "false"), ("TRUE", "true"), ("1.0", "1.00")])
def test_labels_of_a_table_are_as_they_are_written(
    data: Data, tmp_path: Path, run: Callable[[Data], Prepared], first: str, second: str
) -> None:
    with (tmp_path / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [[f"{number}", (first, second)[number % 2]] for number in range(40)]
        csv.writer(file).writerows([["phrase", "tone"], *rows])
    splits, metrics = run(replace(data, files=[str(tmp_path / "rows.csv")], labels=[first, second]))
    assert metrics["labels"] == {first: 20, second: 20}
    assert {turn_of(row).completion for row in splits["train"]} == {first, second}


def test_one_prompt_with_labels_that_differ_in_case_is_a_contradiction(data: Data, run: Callable[[Data], Prepared]) -> None:
    rows = [{"phrase": f"{number}", "tone": ("US", "us")[number % 2]} for number in range(40)]
    rewrite(data, [*rows, {"phrase": "0", "tone": "us"}])
    _, metrics = run(replace(data, labels=["US", "us"]))
    assert (metrics["dropped"]["conflicting_labels"], metrics["dropped"]["duplicates"]) == (2, 0)


@pytest.mark.parametrize("labels", [["joy", "joy"], ["joy", " fear"], ["joy", ""], ["joy", "(invalid)"]])
def test_labels_that_cannot_be_distinguished_are_rejected(data: Data, labels: list[str]) -> None:
    assert str(checks.problem({"data": replace(data, labels=labels)})).startswith("data.labels: ")


def test_a_column_that_no_template_uses_may_hold_anything(data: Data, run: Callable[[Data], Prepared]) -> None:
    plain = run(data)
    rows = [json.dumps({"extra": [{"any": None}, float("nan"), "\ud83d"], **row}) for row in phrases(10)]
    Path(data.files[0]).write_text("\n".join(rows), encoding="utf-8")
    assert run(data) == plain


def test_numbers_are_labels_too(data: Data, run: Callable[[Data], Prepared]) -> None:
    rewrite(data, [{"phrase": f"{number}", "tone": number % 2} for number in range(40)])
    _, metrics = run(replace(data, labels=["0", "1"]))
    assert metrics["labels"] == {"0": 20, "1": 20}


def test_space_around_a_label_is_no_part_of_it(data: Data, encoder: Encoder) -> None:
    rows = TemplateRows(data, data.text_template, data.completion_column, encoder)
    assert rows.segments(Row("here", {"phrase": "x", "tone": " joy\n"}))[1] == learned("joy", "joy")


def test_one_label_alone_is_no_classifier(data: Data, refused: Callable[[Data], str]) -> None:
    rewrite(data, [row for row in phrases(10) if row["tone"] == "fear"])
    assert refused(data).startswith("data: all rows have the label 'fear'")


@pytest.mark.parametrize(("each", "name"), [(1, "test"), (2, "test"), (4, "validation")])
def test_fewer_rows_than_the_split_needs_are_counted(data: Data, refused: Callable[[Data], str], each: int, name: str) -> None:
    rewrite(data, phrases(each))
    assert refused(data).startswith(f"data: {each} distinct prompts of label 'joy' are too few for a {name} split")


def test_contradictions_only_leave_no_rows(data: Data, refused: Callable[[Data], str]) -> None:
    rewrite(data, [{"phrase": "same", "tone": tone} for tone in TONES])
    assert refused(data).startswith("data: no rows are left")


@pytest.mark.parametrize("overlong", list(Overlong))
def test_a_limit_that_no_row_keeps_is_named_with_the_shortest_row(
    data: Data, refused: Callable[[Data], str], overlong: Overlong
) -> None:
    message = refused(replace(data, source_max_len=20, overlong=overlong))
    assert message.startswith("data.source_max_len: ")
    assert "47" in message


@pytest.mark.parametrize("template", ["### Tone?", "{{phrase}} {{tone}}", "### Tone: {tone}", "{phrase}", "{phrase} {tone", ""])
def test_a_template_that_names_too_little_is_refused(data: Data, refused: Callable[[Data], str], template: str) -> None:
    assert refused(replace(data, text_template=template)).startswith("data.text_template: ")


def test_a_completion_column_that_the_template_lacks_is_named(data: Data, refused: Callable[[Data], str]) -> None:
    assert "{mood} (data.completion_column)" in refused(replace(data, completion_column="mood"))


@pytest.mark.parametrize(
    ("content", "line"), [('{"phrase": "a", "tone": "joy"}\n{"phrase": "b"\n', 2), ("[1,\n2", 2), ("phrase,tone", 1)]
)
def test_broken_json_is_named_with_its_line(data: Data, refused: Callable[[Data], str], content: str, line: int) -> None:
    Path(data.files[0]).write_text(content, encoding="utf-8")
    assert refused(data).startswith(f"{data.files[0]} line {line}: not JSON")


def test_no_files_and_no_dataset_are_told_with_their_keys(data: Data, refused: Callable[[Data], str]) -> None:
    message = refused(replace(data, files=[]))
    assert "data.files" in message
    assert "data.path" in message


def test_free_answers_need_no_labels(data: Data, root: Path, tmp_path: Path, run: Callable[[Data], Prepared]) -> None:
    chosen = OmegaConf.merge(data, OmegaConf.load(root / "conf/data/question_answer.yaml"))
    chosen.files = [str(tmp_path / "questions.jsonl")]
    questions = [{"Question": f"How much is {number} + 1?", "Best Answer": f"{number + 1}"} for number in range(20)]
    write_jsonl(tmp_path / "questions.jsonl", questions)
    section = OmegaConf.to_object(chosen)
    assert isinstance(section, Data)
    splits, metrics = run(section)
    assert "labels" not in metrics
    turn = turn_of(splits["train"][0])
    number = int(turn.expected) - 1
    assert turn.prompt == f"<|user|>\nHow much is {number} + 1?<|end|>\n<|assistant|>\n"
    assert turn.completion == f"{number + 1}\n<|end|>"


WORDS = {"phrase": "Braces {like} {{these}} & ünïcode 😀", "tone": "joy"}


def rendered(prompt: Prompt) -> str:
    return prompt.render_prompt(WORDS) + prompt.render_completion(WORDS)


@pytest.mark.parametrize(
    ("template", "content"),
    [
        ("### Text: {phrase}\n### The tone is:\n{tone}", f"### Text: {WORDS['phrase']}\n### The tone is:"),
        ("  {phrase}  {tone}\n", WORDS["phrase"]),
        ("{{json}}: {phrase} {{}} {tone}", f"{{json}}: {WORDS['phrase']} {{}}"),
    ],
)
def test_a_chat_prompt_and_its_answer_are_what_the_chat_template_makes_of_two_messages(
    data: Data, encoder: Encoder, template: str, content: str
) -> None:
    prompt = make_prompt(replace(data, use_chat_template=True, text_template=template), encoder)
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "joy"}]
    tokenizer = encoder.tokenizer
    assert rendered(prompt) == tokenizer.apply_chat_template(messages, tokenize=False).rstrip()
    opening = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert prompt.render_prompt(WORDS) == opening
    assert encoder.encode_completion(prompt.render_completion(WORDS), opening)[-1] in encoder.eos_token_ids


CHAT_ML = (
    "{{ bos_token }}{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe {brief}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_chat_prompt_has_one_bos_whoever_adds_it(data: Data, tiny_phi3: Path, adds_bos: bool) -> None:
    tokenizer = load_tokenizer(tiny_phi3)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = CHAT_ML
    if adds_bos:
        special = [("<|endoftext|>", tokenizer.bos_token_id)]
        template = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=special)
        tokenizer.backend_tokenizer.post_processor = template
    encoder = Encoder(tokenizer, [tokenizer.eos_token_id])
    prompt = make_prompt(replace(data, use_chat_template=True), encoder)
    messages = [{"role": "user", "content": f"### Text: {WORDS['phrase']}\n### The tone is:"}]
    whole = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": "joy"}], tokenize=False)
    assert rendered(prompt) == whole.rstrip().removeprefix("<|endoftext|>" if adds_bos else "")
    opening = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert encoder.encode_prompt(prompt.render_prompt(WORDS)) == tokenizer(opening, add_special_tokens=False)["input_ids"]


def test_a_model_without_a_chat_template_is_told_with_the_key(data: Data, tiny_phi3: Path) -> None:
    tokenizer = load_tokenizer(tiny_phi3)
    tokenizer.chat_template = None
    with pytest.raises(InputError, match=r"^data\.chat_template: the base model has no chat template; name a file"):
        make_prompt(replace(data, use_chat_template=True), Encoder(tokenizer, [1]))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            "{{ raise_exception('only with tools') }}",
            r"fails on .* \(the model's chat template rejects the messages \(only with tools\)\); set it to false",
        ),
        ("{{ messages[0].nothing.at.all }}", "chat template fails on a question and its answer"),
        (
            "{{ messages[0].content }}{{ messages[0].content }}{{ messages[1].content if not add_generation_prompt }}",
            "does not show a message exactly once",
        ),
        ("<u>fixed<a>", "message 2 has no text to learn"),
    ],
)
def test_a_chat_template_that_cannot_become_a_prompt_is_refused(data: Data, tiny_phi3: Path, template: str, reason: str) -> None:
    tokenizer = load_tokenizer(tiny_phi3)
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=rf"^data\.use_chat_template: .*{reason}") as raised:
        make_prompt(replace(data, use_chat_template=True), Encoder(tokenizer, [1]))
    assert "\n" not in str(raised.value)


def test_a_chat_template_that_is_not_one_is_refused(data: Data, tiny_phi3: Path) -> None:
    tokenizer = load_tokenizer(tiny_phi3)
    tokenizer.chat_template = "{% broken"
    with pytest.raises(InputError, match=r"^data\.chat_template: the base model's is not a valid template \("):
        make_prompt(replace(data, use_chat_template=True), Encoder(tokenizer, [1]))


def test_the_prompt_carries_labels_and_limit(data: Data, encoder: Encoder) -> None:
    prompt = make_prompt(data, encoder)
    assert (prompt.labels, prompt.source_max_len) == (tuple(TONES), 256)
    assert make_prompt(replace(data, labels=None), encoder).labels is None
    assert prompt.eos_token_ids == tuple(encoder.eos_token_ids) == (256, 259)


# the corpus


def by_sequence(splits: Splits) -> list[list[dict[str, Any]]]:
    """The training rows by sequence, whose numbers go up from 0."""
    numbers = [row["sequence"] for row in splits["train"]]
    assert numbers == sorted(numbers)
    assert sorted(set(numbers)) == list(range(numbers[-1] + 1))
    return [[row for row in splits["train"] if row["sequence"] == number] for number in range(numbers[-1] + 1)]


def sources(splits: Splits) -> list[str]:
    return [row["source"] for row in splits["train"]]


def test_each_strategy_puts_the_same_rows_in_sequences(data: Data, run: Callable[[Data], Prepared], encoder: Encoder) -> None:
    plain, _ = run(replace(data, corpus_strategy=CorpusStrategy("line-by-line")))
    assert all("sequence" not in row for row in plain["validation"] + plain["test"])
    for kind in CorpusStrategy:
        splits, metrics = run(replace(data, corpus_strategy=kind))
        assert (splits["validation"], splits["test"]) == (plain["validation"], plain["test"])
        assert sorted(sources(splits)) == sorted(sources(plain))
        assert (sources(splits) == sources(plain)) is not kind.value.endswith("-random")
        grouped = by_sequence(splits)
        assert (metrics["train_sequences"], metrics["dropped"]["max_samples"]) == (len(grouped), 0)
        assert max(sum(token_count(row, encoder) for row in rows) for rows in grouped) <= 256
        assert len(grouped) < 28 / 3 if kind.value.startswith("join") else len(grouped) == 28


def test_a_random_corpus_is_that_of_the_seed(data: Data, encoder: Encoder) -> None:
    chosen = replace(data, corpus_strategy=CorpusStrategy("join-random"))
    rows = list(measured(of_lengths(*range(1, 21)), chosen, encoder))
    first, again, other = (in_sequences(rows, chosen, seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("name", "most"), [("line-by-line", 10), ("line-by-line-random", 10), ("join", 2), ("join-random", 2)])
def test_max_samples_keeps_so_many_sequences_and_counts_the_rows_it_drops(
    data: Data, run: Callable[[Data], Prepared], name: str, most: int
) -> None:
    every, _ = run(replace(data, corpus_strategy=CorpusStrategy(name)))
    splits, metrics = run(replace(data, corpus_strategy=CorpusStrategy(name), max_samples=most))
    assert splits["train"] == [row for row in every["train"] if row["sequence"] < most]
    assert metrics["train_sequences"] == most
    assert metrics["dropped"]["max_samples"] == 28 - len(splits["train"]) > 0
    assert sum(metrics["splits"].values()) + sum(metrics["dropped"].values()) == metrics["rows"]
    assert metrics["splits"]["test"] == 8


def test_more_max_samples_than_sequences_drop_none(data: Data, run: Callable[[Data], Prepared]) -> None:
    assert run(replace(data, max_samples=1000)) == run(data)


def test_caps_cut_validation_and_test_rows_that_train_does_not_get(data: Data, run: Callable[[Data], Prepared]) -> None:
    rewrite(data, phrases(40))  # 16 of 160 validate, 32 test
    every, _ = run(data)
    splits, metrics = run(replace(data, max_validation_samples=8, max_test_samples=20))
    assert splits["train"] == every["train"]
    for name, kept, cut in (("validation", 8, 8), ("test", 20, 12)):
        assert splits[name] == [row for row in every[name] if row in splits[name]]
        assert Counter(turn_of(row).expected for row in splits[name]) == dict.fromkeys(TONES, kept // 4)
        assert (metrics["splits"][name], metrics["dropped"][f"max_{name}_samples"]) == (kept, cut)
    assert sum(metrics["splits"].values()) + sum(metrics["dropped"].values()) == metrics["rows"]
    assert run(replace(data, max_validation_samples=16, max_test_samples=None)) == run(data)


def test_caps_cut_free_text_and_test_files_too(data: Data, tmp_path: Path, run: Callable[[Data], Prepared]) -> None:
    write_jsonl(tmp_path / "test.jsonl", phrases(5, "held out"))
    free = replace(data, labels=None, test_files=[str(tmp_path / "test.jsonl")], max_validation_samples=3, max_test_samples=7)
    splits, metrics = run(free)
    assert (len(splits["validation"]), len(splits["test"])) == (3, 7)
    assert (metrics["dropped"]["max_validation_samples"], metrics["dropped"]["max_test_samples"]) == (1, 13)


def test_a_cap_below_a_row_of_each_label_is_refused(data: Data, refused: Callable[[Data], str]) -> None:
    message = "must be at least 4, a row of each label, or null for no cap, got 3"
    assert refused(replace(data, max_validation_samples=3)) == f"data.max_validation_samples: {message}"
    assert refused(replace(data, max_test_samples=3)) == f"data.max_test_samples: {message}"


@pytest.mark.parametrize("most", [0, -1])
def test_max_samples_that_leave_nothing_are_refused(data: Data, refused: Callable[[Data], str], most: int) -> None:
    assert refused(replace(data, max_samples=most)) == f"data.max_samples: must be at least 1 or null, got {most}"


def test_a_truncated_row_counts_as_what_is_left_of_it(data: Data, encoder: Encoder) -> None:
    chosen = replace(data, corpus_strategy=CorpusStrategy("join"), overlong=Overlong.truncate, source_max_len=30)
    rows = list(measured(of_lengths(25, 29, 6, 16), chosen, encoder))  # 29, 33 (cut to 30), 10, 20 tokens
    assert [row["sequence"] for row in in_sequences(rows, chosen, 0)] == [0, 1, 2, 2]


@pytest.mark.parametrize(("padded", "masked"), [(False, True), (True, True), (True, False)])
def test_what_is_prepared_says_how_its_sequences_are_made(
    data: Data, tiny_phi3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padded: bool, masked: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    Path("models/base").symlink_to(tiny_phi3)
    joined = replace(data, corpus_strategy=CorpusStrategy("join"), pad_to_max_len=padded, use_attention_mask=masked)
    main(Config(joined, seed=0))
    assert Corpus.load(Path("data/prepared")) == Corpus(256 if padded else None, masked)
    rows = read_jsonl(Path("data/prepared/train.jsonl"))
    figures = json.loads(Path("metrics/prepare.json").read_text(encoding="utf-8"))
    assert len(by_sequence({"train": rows})) == figures["train_sequences"] < figures["splits"]["train"] == len(rows)


def test_a_strategy_that_does_not_exist_is_refused(root: Path) -> None:
    with pytest.raises(ValidationError, match="by-mood"):
        OmegaConf.merge(OmegaConf.structured(Data), OmegaConf.load(root / "conf/data/tone.yaml"), {"corpus_strategy": "by-mood"})


DEFAULT = {  # sha256 of what the default recipe prepares
    "train": "23435c14a6fc8cf2523845580c72351f74e48a1b1e6319dc5e82e6e065bd574f",
    "validation": "ced18ac4f6584907fe1234d242858de5241b9e02ef2812a6bac26584194e9c0d",
    "test": "e1028ef4176252a77dbec6051244401bfe2d61cbb5e0bd04bd71fa7fa84b2654",
}


class Project:
    """A folder with params.yaml, a base model and rows, in which the stage runs as dvc runs it."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}

    def prepare(self, *overrides: str) -> tuple[int, str, list[str]]:
        """Exit code, standard output and the lines of standard error."""
        result = run_module("stages.prepare", *overrides, folder=self.folder)
        return result.returncode, result.stdout, result.stderr.splitlines()

    def prepare_in_a_process(self, *overrides: str) -> tuple[int, str, list[str]]:
        command = [sys.executable, "-m", "stages.prepare", *overrides]
        result = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=100)
        return result.returncode, result.stdout, result.stderr.splitlines()

    def outputs(self) -> dict[str, bytes]:
        folders = [self.folder / "data/prepared", self.folder / "metrics"]
        return {
            str(path): path.read_bytes()
            for folder in folders
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "lock"
        }


@pytest.fixture(scope="module")
def project(root: Path, tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which prepare has run well."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(tiny_phi3, folder / "models/base")
    section = OmegaConf.merge(OmegaConf.load(root / "conf/data/tone.yaml"), SETTINGS)
    section.files = ["rows.jsonl"]
    OmegaConf.save(CPU | {"data": section, "seed": 0}, folder / "params.yaml")
    write_jsonl(folder / "rows.jsonl", phrases(10))
    project = Project(folder, root)
    code, error_text, errors = project.prepare_in_a_process()
    assert (code, errors) == (0, [])
    assert re.fullmatch(r"prepare: 28 train, 4 validation, 8 test rows in data/prepared, 0 of 40 rows dropped, .*\n", error_text)
    return project


def test_a_run_leaves_the_splits_the_prompt_and_the_figures(project: Project, encoder: Encoder) -> None:
    prepared = project.folder / "data/prepared"
    names = ["corpus.json", "prompt.json", "test.jsonl", "train.jsonl", "validation.jsonl"]
    assert sorted(path.name for path in prepared.iterdir()) == names
    train = read_jsonl(prepared / "train.jsonl")
    prompt = Prompt.load(prepared)
    assert prompt.max_new_tokens == max(len(encoder.encode_segments([row])[0][1]) for row in train) == len("surprise") + 1
    assert prompt.labels == tuple(TONES)
    metrics = json.loads((project.folder / "metrics/prepare.json").read_text(encoding="utf-8"))
    assert metrics["splits"]["train"] == len(train)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "override", "error"),
    [
        ("broken.jsonl", b'{"phrase": "a", "tone": "joy"}\n{"phrase": "b"\n', "seed=0", "broken.jsonl line 2: not JSON"),
        ("latin.jsonl", b'{"phrase": "sch\xf6n", "tone": "joy"}\n', "seed=0", "latin.jsonl line 1: not UTF-8"),
        ("late.csv", b'phrase,tone\na,joy\nb,"fear\n', "seed=0", "late.csv row 2 (line 3): not CSV"),
        (
            "half.jsonl",
            b'{"phrase": "cut \\ud83d", "tone": "joy"}\n',
            "seed=0",
            "half.jsonl row 1: column 'phrase' holds half",
        ),
        ("rows.jsonl", None, "data.labels=[joy,joy]", "data.labels: 'joy' is in the list twice"),
        ("rows.jsonl", None, "data.source_max_len=long", "params.yaml: data.source_max_len: "),
    ],
)
def test_a_failed_run_says_one_line_and_leaves_the_earlier_outputs(
    project: Project, name: str, content: bytes | None, override: str, error: str
) -> None:
    before = project.outputs()
    assert len(before) == 7
    if content is not None:
        (project.folder / name).write_bytes(content)
    prepare = project.prepare_in_a_process if name == "broken.jsonl" else project.prepare
    code, error_text, errors = prepare(f"data.files=[{name}]", override)
    assert project.outputs() == before
    assert (code, error_text, len(errors)) == (1, "", 1), errors
    assert error in errors[0]
    assert errors[0].startswith("prepare: ")


def test_a_cut_is_said_in_the_one_line(project: Project) -> None:
    before = {name: content for name, content in project.outputs().items() if name.endswith("train.jsonl")}
    code, error_text, errors = project.prepare("data.max_test_samples=4")
    assert (code, errors) == (0, [])
    counted = "28 train, 4 validation, 4 test rows in data/prepared, 4 of 40 rows dropped"
    assert error_text.startswith(f"prepare: {counted}, test cut from 8 to 4 (data.max_test_samples), ")
    assert before.items() <= project.outputs().items()


def test_a_template_on_the_command_line_has_line_breaks(project: Project) -> None:
    code, _, errors = project.prepare('data.text_template="{phrase}\\n\\ttone \\\\n:\\n{tone}"')
    assert (code, errors) == (0, [])
    assert Prompt.load(project.folder / "data/prepared").prompt == "{phrase}\n\ttone \\n:\n"


def test_the_default_rows_are_prepared_to_the_bytes_of_dvc_lock(project: Project, root: Path) -> None:
    (project.folder / "data/raw").mkdir(parents=True)
    shutil.copy(root / "data/raw/tone.jsonl", project.folder / "data/raw")
    settings = ["data.eval_dataset_size=0.05", "data.test_size=0.2", "data.source_max_len=1024"]  # a token a byte
    code, error_text, errors = project.prepare("data.files=[data/raw/tone.jsonl]", *settings)
    assert (code, errors) == (0, [])
    assert error_text.startswith("prepare: 900 train, 60 validation, 240 test rows in data/prepared, 0 of 1200 rows dropped, ")
    for name, digest in DEFAULT.items():
        assert hashlib.sha256((project.folder / f"data/prepared/{name}.jsonl").read_bytes()).hexdigest() == digest


@pytest.mark.slow
def test_any_number_of_cores_gives_the_same_bytes(project: Project) -> None:
    write_jsonl(project.folder / "many.jsonl", phrases(1500))  # more than a batch
    runs = []
    for threads in ("1", "3"):
        project.environment["RAYON_NUM_THREADS"] = threads
        code, _, errors = project.prepare_in_a_process("data.files=[many.jsonl]", "data.max_samples=null")
        assert (code, errors) == (0, [])
        runs.append({name: content for name, content in project.outputs().items() if "timings" not in name})
    assert runs[0] == runs[1]
