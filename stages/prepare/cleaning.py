"""Drops the rows that are not kept, and measures the length of the others."""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, islice
from typing import Any

from jsonschema.protocols import Validator
from tqdm import tqdm

from stages.prepare.split import deduplicate
from tunepress.config.data import Data, Overlong
from tunepress.core.errors import InputError
from tunepress.text.json_answers import Schema, schema_problem, validator
from tunepress.text.segments import answer
from tunepress.text.tokenizer import Encoder, Tokens

BATCH = 5000  # rows that are encoded together
PROGRESS_DELAY = 2  # seconds before a progress bar appears
SHOWN = 5  # violations that are printed


@dataclass(frozen=True)
class Cleaned:
    """The rows of a list of files that are kept.

    Attributes:
        rows: with their lengths in tokens.
        total: how many were read.
        dropped: how many are not kept, by reason.
        truncated: how many of `rows` will be truncated.
    """

    rows: list[dict[str, Any]]
    total: int
    dropped: Counter[str]
    truncated: int


def clean(rows: Iterable[dict[str, Any]], data: Data, encoder: Encoder, schema: Schema | None) -> Cleaned:
    """Drops answers that do not match the schema, duplicates, contradictions and overlong rows, and reports some of them."""
    violations: list[str] = []
    if schema:
        rows = matching(rows, validator(schema), violations)
    unique = deduplicate(measured(rows, data, encoder), bool(data.labels))
    report_violations(violations)
    report_conflicts(unique.conflicts)
    kept, overlong, truncated = fit(unique.rows, data)
    dropped = {
        "json_schema": len(violations),
        "duplicates": len(unique.duplicates),
        "conflicting_labels": len(unique.conflicts),
        "overlong": overlong,
    }
    return Cleaned(kept, unique.total + len(violations), Counter(dropped), truncated)


def matching(rows: Iterable[dict[str, Any]], schema: Validator, violations: list[str]) -> Iterator[dict[str, Any]]:
    """The rows whose learned answers all match a schema; why the others do not is appended to `violations`."""
    for row in rows:
        problems = (schema_problem(segment["expected"], schema) for segment in row["segments"] if segment["train"])
        if problem := next(filter(None, problems), None):
            violations.append(f"{row['source']}: dropped, its answer {problem}")
        else:
            yield row


def measured(rows: Iterable[dict[str, Any]], data: Data, encoder: Encoder) -> Iterator[dict[str, Any]]:
    """Adds to each row the number of its tokens as `length`, and that of its longest answer as `longest`.

    The tokenizer encodes a batch in a thread of its own while the next one is read.
    """
    with ThreadPoolExecutor(max_workers=1) as tokenizer:
        batch: list[dict[str, Any]] = []
        encoded: Future[list[list[Tokens]]] | None = None
        for following in chain(in_batches(rows), [[]]):
            starting = tokenizer.submit(encoder.encode_segments, following) if following else None
            if encoded:
                yield from map(partial(with_lengths, source_max_len=data.source_max_len), batch, encoded.result())
            batch, encoded = following, starting


def in_batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    remaining = iter(tqdm(rows, desc="rows", unit="row", delay=PROGRESS_DELAY))
    return iter(lambda: list(islice(remaining, BATCH)), [])


def with_lengths(row: dict[str, Any], encoded: list[Tokens], source_max_len: int) -> dict[str, Any]:
    ends = list(accumulate(map(len, encoded)))
    row["length"], row["begins"] = ends[-1], ends[-1] - len(encoded[-1])
    row["longest"] = max(
        min(end, source_max_len) - (end - len(tokens))
        for segment, tokens, end in zip(row["segments"], encoded, ends, strict=True)
        if segment["train"]
    )
    return row


def fit(rows: list[dict[str, Any]], data: Data) -> tuple[list[dict[str, Any]], int, int]:
    """Drops rows of more than source_max_len tokens, or keeps those in which the last answer begins before.

    Returns:
        The rows; how many are dropped; how many will be truncated.
    """
    fitting = [row for row in rows if row["length"] <= data.source_max_len]
    kept, truncated = fitting, 0
    if data.overlong is Overlong.truncate:
        kept = [row for row in rows if row["begins"] < data.source_max_len]
        truncated = len(kept) - len(fitting)
    if rows and not kept:
        shortest = min(row["length"] for row in rows)
        raise InputError(
            f"data.source_max_len: every row has more than {data.source_max_len} tokens (the shortest: {shortest}); increase it"
        )
    return kept, len(rows) - len(kept), truncated


def report_violations(violations: list[str]) -> None:
    """Prints the first rows whose answers do not match data.json_schema, and how many there are."""
    for violation in violations[:SHOWN]:
        print(f"prepare: {violation}")
    if len(violations) > SHOWN:
        print(f"prepare: {len(violations)} rows in all do not match data.json_schema")


def report_conflicts(conflicts: list[dict[str, Any]]) -> None:
    """Prints the rows that contradict another one."""
    for row in conflicts:
        print(f"prepare: {row['source']}: dropped, another row has the same prompt and another answer than {answer(row)!r}")
