"""prepare: turns raw rows into prompts and completions and splits them into train, validation and test.

Reads files (or a dataset on a hub), fills the template, drops duplicates and contradictions, and counts everything it
leaves out. What is dropped never reaches a model; what is kept never stands in two splits.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from stages.prepare.lengths import histogram, summary
from stages.prepare.rows import Row, read_files, read_hub
from stages.prepare.split import capped, deduplicate, overlap, split
from tunepress.config.data import Data, Overlong
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output, write_json, write_jsonl
from tunepress.core.paths import BASE, METRICS, PREPARED
from tunepress.models.hf_model import check_base_context, load_encoder
from tunepress.remote.collected import local_paths
from tunepress.text.chat_template import wrap_in_chat_template
from tunepress.text.labels import labels_problem
from tunepress.text.packing import Corpus, pack
from tunepress.text.prompt import Prompt, column_names, split_template
from tunepress.text.tokenizer import Encoder


@dataclass
class Config:
    """What this stage reads of params.yaml."""

    data: Data
    seed: int


def main(cfg: Config) -> str:
    """Prepares data/prepared from cfg.data."""
    encoder = load_encoder(BASE)
    check_base_context(BASE, cfg.data.source_max_len)
    prompt = make_prompt(cfg.data, encoder)
    splits, metrics = prepare(cfg.data, cfg.seed, prompt, encoder)
    longest = max(len(encoder.encode_row(row, cfg.data.source_max_len)[1]) for row in splits["train"])
    with atomic_output(PREPARED) as partial:
        for name, rows in splits.items():
            write_jsonl(partial / f"{name}.jsonl", rows)
        Corpus(cfg.data.source_max_len if cfg.data.pad_to_max_len else None, cfg.data.use_attention_mask).save(partial)
        replace(prompt, max_new_tokens=longest).save(partial)
    write_json(METRICS / "prepare.json", metrics)
    sizes = ", ".join(f"{len(rows)} {name}" for name, rows in splits.items())
    dropped = sum(metrics["dropped"].values())
    return f"{sizes} rows in {PREPARED}, {dropped} of {metrics['rows']} rows dropped{cuts(metrics)}"


def cuts(metrics: dict[str, Any]) -> str:
    """How much the caps on validation and test rows have cut, where they have."""
    said = ""
    for name in ("validation", "test"):
        if cut := metrics["dropped"][f"max_{name}_samples"]:
            kept = metrics["splits"][name]
            said += f", {name} cut from {kept + cut} to {kept} (data.max_{name}_samples)"
    return said


def make_prompt(data: Data, encoder: Encoder) -> Prompt:
    """Cuts data.text_template in prompt and completion, inside the model's chat template if asked."""
    if problem := labels_problem(data.labels or []):
        raise InputError(problem)
    prompt, completion = split_template(data.text_template, data.completion_column)
    if data.use_chat_template:
        if encoder.tokenizer.chat_template is None:
            raise InputError("data.use_chat_template: the base model has no chat template; set data.use_chat_template=false")
        prompt, completion = wrap_in_chat_template(prompt, completion, encoder)
    labels = tuple(data.labels) if data.labels else None
    return Prompt(prompt, completion, labels, data.source_max_len, eos_token_ids=tuple(encoder.eos_token_ids))


def prepare(data: Data, seed: int, prompt: Prompt, encoder: Encoder) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Reads, checks, cleans and splits the rows; returns the splits and what to tell about them."""
    columns = list(dict.fromkeys(column_names(data.text_template)))
    raw = read_files(local_paths(data.files, "files"), columns) if data.files else read_dataset(data, columns)
    raw_test = read_files(local_paths(data.test_files, "test_files"), columns)
    left = deduplicate((render(row, data, prompt) for row in raw), bool(data.labels))
    left_test = deduplicate((render(row, data, prompt) for row in raw_test), bool(data.labels))
    report_conflicts(left.conflicts + left_test.conflicts)
    rows, overlong, truncated = fit(left.rows, data, encoder)
    test, overlong_test, truncated_test = fit(left_test.rows, data, encoder)
    check_labels(rows, data)
    if data.test_files and not test:
        raise InputError("data.test_files: no rows are left")
    splits = split(rows, bool(data.labels), 0.0 if test else data.test_size, data.eval_dataset_size, seed)
    splits["test"] += test
    shared = overlap(splits)
    if shared:
        raise InputError(f"{shared[0]['source']}: this prompt is also a training row, {len(shared)} in all; drop them from one")
    lengths = [token_count(row, encoder) for row in rows + test]
    sizes = {name: len(members) for name, members in splits.items()}
    splits["train"] = in_sequences(splits["train"], data, seed, encoder)
    for name in ("validation", "test"):
        cap = f"max_{name}_samples"
        splits[name] = capped(splits[name], getattr(data, cap), cap, bool(data.labels), seed)
    left_out = {name: sizes[name] - len(members) for name, members in splits.items()}
    metrics = {
        "rows": len(raw) + len(raw_test),
        "dropped": {
            "duplicates": len(left.duplicates) + len(left_test.duplicates),
            "conflicting_labels": len(left.conflicts) + len(left_test.conflicts),
            "overlong": overlong + overlong_test,
            "max_samples": left_out["train"],
            "max_validation_samples": left_out["validation"],
            "max_test_samples": left_out["test"],
        },
        "truncated": truncated + truncated_test,
        "overlap_between_splits": len(shared),
        "splits": {name: len(members) for name, members in splits.items()},
        "train_sequences": splits["train"][-1]["sequence"] + 1,
        "tokens": summary(lengths),
        "lengths": histogram(lengths),
        "source_max_len": data.source_max_len,
    }
    if data.labels:
        metrics["labels"] = dict(sorted(Counter(row["expected"] for row in rows + test).items()))
    return splits, metrics


def read_dataset(data: Data, columns: list[str]) -> list[Row]:
    """Rows of the hub's dataset that data.path names."""
    if not data.path:
        raise InputError("data.files: names no file; name one, or a dataset in data.path")
    return read_hub(data.path, data.name, data.revision, data.split, columns)


def render(row: Row, data: Data, prompt: Prompt) -> dict[str, Any]:
    """A raw row as prompt and completion.

    Raises:
        InputError: a column is empty, or the label is not in data.labels.
    """
    if not any(row.values[column].strip() for column in prompt.columns):
        raise InputError(f"{row.source}: {', '.join(map(repr, prompt.columns))} is empty")
    expected = row.values[data.completion_column].strip()
    if any("\0" in row.values[column] for column in column_names(data.text_template)):
        raise InputError(f"{row.source}: holds a NUL character, at which onnxruntime-genai's tokenizer stops reading")
    if not expected:
        raise InputError(f"{row.source}: {data.completion_column!r} is empty")
    if data.labels and expected not in data.labels:
        cure = "add it or correct the row; in YAML numbers, true and false need quotes"
        raise InputError(f"{row.source}: label {expected!r} is not in data.labels ({', '.join(data.labels)}); {cure}")
    return {
        "source": row.source,
        "prompt": prompt.render_prompt(row.values),
        "completion": prompt.render_completion({**row.values, data.completion_column: expected}),
        "expected": expected,
    }


def in_sequences(rows: list[dict[str, Any]], data: Data, seed: int, encoder: Encoder) -> list[dict[str, Any]]:
    """Training rows in the order in which they are joined, each with the number of its sequence."""
    if data.max_samples is not None and data.max_samples < 1:
        raise InputError(f"data.max_samples: {data.max_samples} leaves no rows; 1 or more, or null")
    lengths = [min(token_count(row, encoder), data.source_max_len) for row in rows]
    assigned = pack(lengths, data.corpus_strategy.value, data.source_max_len, data.max_samples, seed)
    return [{**rows[number], "sequence": sequence} for sequence, numbers in enumerate(assigned) for number in numbers]


def report_conflicts(conflicts: list[dict[str, Any]]) -> None:
    """Names the rows that contradict another one."""
    for row in conflicts:
        print(f"prepare: {row['source']}: dropped, the same prompt stands with another answer than {row['expected']!r}")


def fit(rows: list[dict[str, Any]], data: Data, encoder: Encoder) -> tuple[list[dict[str, Any]], int, int]:
    """Drops rows over source_max_len tokens, or keeps those whose prompt at least fits; counts both."""
    kept, truncated = [], 0
    for row in rows:
        if token_count(row, encoder) <= data.source_max_len:
            kept.append(row)
        elif data.overlong is Overlong.truncate and len(encoder.encode_prompt(row["prompt"])) < data.source_max_len:
            kept.append(row)
            truncated += 1
    if rows and not kept:
        shortest = min(token_count(row, encoder) for row in rows)
        raise InputError(f"data.source_max_len: every row has over {data.source_max_len} tokens (the shortest {shortest})")
    return kept, len(rows) - len(kept), truncated


def check_labels(rows: list[dict[str, Any]], data: Data) -> None:
    """Raises InputError unless there are rows, of at least two labels where there are labels."""
    if not rows:
        raise InputError("data: no rows are left")
    found = sorted({row["expected"] for row in rows})
    if data.labels and len(found) < 2:
        raise InputError(f"data: all rows have the label {found[0]!r}; a classifier needs two")


def token_count(row: dict[str, Any], encoder: Encoder) -> int:
    """Tokens of prompt, completion and end of the answer."""
    return len(encoder.encode_prompt(row["prompt"])) + len(encoder.encode_completion(row["completion"]))
