"""prepare: turns raw rows into segments and splits them into train, validation and test.

Reads files (or a dataset on a hub), fills the template or renders the conversations, drops duplicates and contradictions, and
counts everything that is dropped. A dropped row never reaches a model; a kept row is never in two splits.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from stages.prepare.cleaning import clean
from stages.prepare.formats import RowFormat, row_format
from stages.prepare.near_duplicates import drop_near_duplicates
from stages.prepare.rows import Row, read_files, read_hub
from stages.prepare.split import cap, last_answer, overlap, split, weighted
from tunepress.config.data import Data, Format
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output, write_json, write_jsonl
from tunepress.core.paths import BASE, CALIBRATION_ROWS, METRICS, PREPARED
from tunepress.models.hf_model import check_base_context, load_encoder
from tunepress.remote.collected import LISTS, local_paths
from tunepress.text.json_answers import read_schema
from tunepress.text.packing import Corpus, pack
from tunepress.text.prompt import Prompt
from tunepress.text.tokenizer import Encoder

WRITTEN = ("source", "name", "segments", "sequence")  # of a row
REASONS = (  # for which rows are dropped, in the order of metrics/prepare.json
    *("duplicates", "conflicting_labels", "near_duplicates", "overlong"),
    *("max_samples", "max_validation_samples", "max_test_samples"),
)
BINS = 20  # at most, of the histogram of lengths


@dataclass
class Config:
    data: Data
    seed: int


def main(cfg: Config) -> str:
    """Writes data/prepared."""
    encoder = load_encoder(BASE)
    check_base_context(BASE, cfg.data.source_max_len)
    prompt, splits, metrics = prepare(cfg.data, cfg.seed, encoder)
    with atomic_output(PREPARED) as partial:
        for name, rows in splits.items():
            write_jsonl(partial / f"{name}.jsonl", [{key: row[key] for key in WRITTEN if key in row} for row in rows])
        Corpus(cfg.data.source_max_len if cfg.data.pad_to_max_len else None, cfg.data.use_attention_mask).save(partial)
        prompt.save(partial)
    write_json(METRICS / "prepare.json", metrics)
    sizes = ", ".join(f"{len(rows)} {name}" for name, rows in splits.items())
    dropped = sum(metrics["dropped"].values())
    return f"{sizes} rows in {PREPARED}, {dropped} of {metrics['rows']} rows dropped{describe_caps(cfg.data, metrics)}"


def describe_caps(data: Data, metrics: dict[str, Any]) -> str:
    """How many rows the caps on validation and test rows have dropped; empty if none."""
    text = ""
    for name in ("validation", "test"):
        key = f"max_{name}_samples"
        if cut := metrics["dropped"][key]:
            kept = getattr(data, key)  # and not what is left of them without near duplicates
            text += f", {name} cut from {kept + cut} to {kept} (data.{key})"
    return text


def prepare(data: Data, seed: int, encoder: Encoder) -> tuple[Prompt, dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Reads, checks, cleans and splits the rows; returns the prompt, the splits and the metrics."""
    raw, rows_of = open_rows(data, encoder)
    encoder = replace(encoder, eos_token_ids=list(rows_of.prompt().eos_token_ids))
    schema = read_schema(Path(data.json_schema)) if data.json_schema else None
    cleaned = {key: clean(converted(raw.get(key, ()), rows_of), data, encoder, schema) for key in LISTS}
    rows, validation, test, calibration = (cleaned[key].rows for key in LISTS)
    if "files" in raw:
        check_labels(rows, data)
    for key in LISTS[1:]:
        if cleaned[key].total and not cleaned[key].rows:
            raise InputError(f"data.{key}: no rows are left; all were dropped ({describe_dropped(cleaned[key].dropped)})")
    splits = split_rows(rows, validation, test, data, seed)
    if calibration:
        check_overlap({"validation": splits["validation"], "test": splits["test"], "calibration": calibration})
    lengths = [row["length"] for row in rows + validation + test]
    sizes = {name: len(members) for name, members in splits.items()}
    splits["train"] = in_sequences(splits["train"], data, seed)
    for name in ("validation", "test"):
        key = f"max_{name}_samples"
        splits[name] = cap(splits[name], getattr(data, key), key, bool(data.labels), seed)
    dropped = sum((part.dropped for part in cleaned.values()), Counter())
    for name, key in {"train": "max_samples", "validation": "max_validation_samples", "test": "max_test_samples"}.items():
        dropped[key] = sizes[name] - len(splits[name])
    if data.near_duplicates is not None:
        dropped["near_duplicates"] = drop_near_duplicates(splits, data.near_duplicates)
    if calibration:
        splits[CALIBRATION_ROWS.stem] = calibration
    metrics = {
        "rows": sum(part.total for part in cleaned.values()),
        "dropped": {reason: dropped[reason] for reason in (*(["json_schema"] if schema else []), *REASONS)},
        "truncated": sum(part.truncated for part in cleaned.values()),
        "overlap_between_splits": 0,
        "splits": {name: len(members) for name, members in splits.items()},
        "train_sequences": splits["train"][-1]["sequence"] + 1 if splits["train"] else 0,
        "tokens": summarize(lengths),
        "lengths": histogram(lengths),
        "source_max_len": data.source_max_len,
    }
    if data.labels:
        metrics["labels"] = dict(sorted(Counter(map(last_answer, rows + validation + test)).items()))
    if data.datasets:
        metrics["datasets"] = {name: dict(Counter(row.get("name", "") for row in members)) for name, members in splits.items()}
    if rows_of.special_tokens:
        report_special_tokens(rows_of.special_tokens)
        metrics["special_tokens"] = dict(sorted(rows_of.special_tokens.items()))
    longest = max(row["longest"] for row in splits["train"] or calibration or test)
    return replace(rows_of.prompt(), max_new_tokens=longest, json_schema=schema), splits, metrics


def open_rows(data: Data, encoder: Encoder) -> tuple[dict[str, Iterator[Row]], RowFormat]:
    """The rows of each of LISTS that is not empty, and what converts them.

    Raises:
        InputError: there are none, or their columns are those of no format.
    """
    raw = read_rows(data)
    source = next((key for key in LISTS if key in raw), None)
    if source is None:
        raise InputError("data.files: is empty; name a file, or a dataset in data.path")
    first = next(raw[source])
    format, rows_of = row_format(first, data, encoder)
    if data.format is None and format is not Format.template:
        print(f"prepare: the rows have the format {format.value}; data.format overrides")
    raw[source] = chain([first], raw[source])
    return raw, rows_of


def describe_dropped(dropped: Counter[str]) -> str:
    """The reasons for which rows were dropped, with their number."""
    return ", ".join(f"{reason}: {count}" for reason, count in dropped.items() if count)


def split_rows(
    rows: list[dict[str, Any]], validation: list[dict[str, Any]], test: list[dict[str, Any]], data: Data, seed: int
) -> dict[str, list[dict[str, Any]]]:
    """Splits `rows`; validation and test rows of one's own take the place of a share. Training rows are weighted by dataset.

    Raises:
        InputError: a prompt is in two splits, or no training rows are left.
    """
    shares = (0.0 if test else data.test_size, 0.0 if validation else data.eval_dataset_size)
    splits = split(rows, bool(data.labels), *shares, seed)
    splits["validation"] += validation
    splits["test"] += test
    if validation or test:
        check_overlap(splits)
    if data.datasets:
        splits["train"] = weighted(splits["train"], {dataset.name: dataset.weight for dataset in data.datasets}, seed)
    return splits


def check_overlap(splits: dict[str, list[dict[str, Any]]]) -> None:
    """Raises InputError if a prompt is in two splits."""
    if shared := overlap(splits):
        raise InputError(
            f"{shared[0]['source']}: this prompt is also in another split, {len(shared)} in all; remove them from one"
        )


def read_rows(data: Data) -> dict[str, Iterator[Row]]:
    """The rows of each of LISTS that is not empty, one by one; instead of data.files those of data.datasets or data.path."""
    raw = {key: read_files(local_paths(files, key)) for key in LISTS if (files := getattr(data, key))}
    if data.datasets:
        return raw | {
            "files": (replace(row, name=dataset.name) for dataset in data.datasets for row in read_files([dataset.path]))
        }
    if data.files or not data.path:
        return raw
    return raw | {"files": read_hub(data.path, data.name, data.revision, data.split)}


def converted(rows: Iterable[Row], rows_of: RowFormat) -> Iterator[dict[str, Any]]:
    for row in rows:
        name = {"name": row.name} if row.name else {}
        yield {"source": row.source, **name, "segments": rows_of.segments(row)}


def in_sequences(rows: list[dict[str, Any]], data: Data, seed: int) -> list[dict[str, Any]]:
    """The training rows in the order in which they are packed, each with the number of its sequence."""
    if data.max_samples is not None and data.max_samples < 1:
        raise InputError(f"data.max_samples: must be at least 1 or null, got {data.max_samples}")
    lengths = [min(row["length"], data.source_max_len) for row in rows]
    assigned = pack(lengths, data.corpus_strategy.value, data.source_max_len, data.max_samples, seed)
    return [{**rows[number], "sequence": sequence} for sequence, numbers in enumerate(assigned) for number in numbers]


def report_special_tokens(rows_with: Counter[str]) -> None:
    """Prints how many rows contain a special token, which the tokenizer does not read as text."""
    for token, count in sorted(rows_with.items()):
        print(f"prepare: {token} is in the text of {count} rows; the tokenizer reads it as a control token, not as text")


def check_labels(rows: list[dict[str, Any]], data: Data) -> None:
    """Raises InputError unless there are rows, of at least two labels where there are labels."""
    if not rows:
        raise InputError("data: no rows are left; all were dropped as conflicts, as overlong or because of data.json_schema")
    labels = sorted({last_answer(row) for row in rows}) if data.labels else []
    if len(labels) == 1:
        raise InputError(f"data: all rows have the label {labels[0]!r}; a classifier needs two")


def summarize(lengths: list[int]) -> dict[str, Any]:
    return {"min": min(lengths), "median": statistics.median(lengths), "max": max(lengths), "sum": sum(lengths)}


def histogram(lengths: list[int]) -> dict[str, list[int]]:
    """Counts rows by length in at most BINS bins of whole tokens; there is one more of `edges` than of `counts`."""
    shortest, longest = min(lengths), max(lengths)
    width = (longest - shortest) // BINS + 1
    counts, edges = np.histogram(lengths, bins=np.arange(shortest, longest + width + 1, width))
    return {"edges": edges.tolist(), "counts": counts.tolist()}
