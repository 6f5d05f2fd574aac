"""The files of a run that has ended, made by hand: what `stages.report` reads, without a model."""

import shutil
from pathlib import Path
from random import Random
from typing import Any

from stages.report.calibration import bins_of
from stages.report.stage import Config
from tests.conftest import ROOT
from tests.stages.recipes import NO_GATE
from tunepress.core.files import read_json, write_csv, write_json, write_jsonl
from tunepress.core.params import load
from tunepress.core.paths import ADAPTER, LOSS_CURVES, METRICS, ONNX, PREDICTIONS, PREPARED
from tunepress.core.pipeline import DVC_YAML
from tunepress.inference.metrics import classification_metrics, generation_metrics
from tunepress.text.labels import INVALID
from tunepress.text.prompt import Prompt
from tunepress.text.segments import context, learned

TONES = ("joy", "sadness", "fear", "surprise")
TONE = Prompt("### Text: {phrase}\n### The tone is:\n", "{tone}", TONES, source_max_len=256, max_new_tokens=4)
QUESTION = Prompt("Q ({Subject}): {Question}\nA: ", "{Best Answer}", None, source_max_len=64, max_new_tokens=12)
PHRASES = (
    "Our old dog still does his little tap dance every time I pick up the lead",
    "The house is so quiet since the twins moved out that I leave the radio on for company",
    "There was a second set of footprints beside mine all the way back to the tent",
    "You mean to tell me that the whole street has been in on this since June",
    "My tomatoes are ripe and I have been eating them <straight> off the vine & sharing none",
)
WRONG = {"merged": range(7, 240, 22), "onnx": (*range(7, 200, 22), 31, 62, 93, 124, 155)}  # rows answered wrongly


def new_run(folder: Path, labels: bool = True) -> None:
    """Writes a whole run to `folder`: of the tone task, or of one that answers in free text."""
    prompt = TONE if labels else QUESTION
    prompt.save(folder / PREPARED)
    shutil.copyfile(ROOT / DVC_YAML, folder / DVC_YAML)
    write_jsonl(folder / PREPARED / "test.jsonl", [])
    write_jsonl(folder / PREPARED / "train.jsonl", [learned_row(prompt, number) for number in range(5)])
    for path, content in ((ADAPTER / "adapter_model.safetensors", b"adapter"), (ONNX / "model.onnx", b"onnx")):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(content)
    write_curves(folder / LOSS_CURVES)
    tables = {name: predictions(name, labels) for name in ("base", "merged", "onnx")}
    changed = [
        {
            **{key: merged[key] for key in ("source", "prompt", "expected")},
            "merged": merged["predicted"],
            "onnx": onnx["predicted"],
        }
        for merged, onnx in zip(tables["merged"], tables["onnx"], strict=True)
        if merged["predicted"] != onnx["predicted"]
    ]
    for name, rows in (*tables.items(), ("changed", changed)):
        write_csv(folder / PREDICTIONS / f"{name}.csv", rows, list(rows[0]))
    for name, rows in tables.items():
        write_json(folder / METRICS / "evaluate" / f"{name}.json", evaluated(name, rows, labels))
    write_metrics(folder / METRICS, tables, len(changed), labels)
    write_baselines(folder, tables["onnx"], labels)


def write_baselines(folder: Path, rows: list[dict[str, str]], labels: bool) -> None:
    """What `stages.baselines` writes: one label for all rows and a method with every fifth row wrong, or one with each wrong."""
    methods = {"majority": lambda number, right: TONES[0], "tfidf": lambda number, right: right if number % 5 else "fear"}
    chosen = methods if labels else {"nearest": lambda number, right: f"no {right}"}
    answers = {name: [method(number, row["expected"]) for number, row in enumerate(rows)] for name, method in chosen.items()}
    expected = [row["expected"] for row in rows]
    for name, predicted in answers.items():
        figures = (
            classification_metrics(expected, predicted, TONES, 0.95) if labels else generation_metrics(expected, predicted, 0.95)
        )
        answers_of = {key: value for key, value in figures.items() if key != "per_class"}
        speeds = {"seconds_to_make": 0.4, "ms_per_answer": 1.5, "size_mb": 2.25}
        for path, values in ((METRICS / "baselines.json", answers_of), (METRICS / "benchmark/baselines.json", speeds)):
            known = read_json(folder / path) if (folder / path).exists() else {}
            write_json(folder / path, known | {name: values})
    table = [
        {"source": row["source"], "expected": row["expected"]} | {name: answers[name][number] for name in answers}
        for number, row in enumerate(rows)
    ]
    write_csv(folder / PREDICTIONS / "baselines.csv", table, list(table[0]))


def learned_row(prompt: Prompt, number: int) -> dict[str, Any]:
    """A training row of such a run."""
    phrase, answer = f"{PHRASES[number]}, row {number}.", TONES[number % 4] if prompt.labels else f"answer {number}"
    columns = {"phrase": phrase, "Question": phrase, "Subject": "life"}
    source = f"data/raw/rows.jsonl row {1000 + number}"
    return {"source": source, "segments": [context(prompt.render_prompt(columns)), learned(answer, answer)], "sequence": number}


def sections(root: Path, labels: bool = True, overrides: tuple[str, ...] = ()) -> Config:
    """The parameters of such a run."""
    return load(Config, [*choices(labels), *overrides], root / "params.yaml")


def choices(labels: bool) -> list[str]:
    """The overrides of such a run: three bounds, of which the last one is broken, or none."""
    bounds = {"max_drop": "0.05", "min_gain": "0.2", "max_size_mb": "100"} if labels else {}
    return [f"gate.{name}={bounds.get(name, 'null')}" for name in vars(NO_GATE)] + ([] if labels else ["data.labels=null"])


def predictions(name: str, labels: bool) -> list[dict[str, str]]:
    """240 rows; the answers of base are wrong in all of them, those of the others in those of WRONG."""
    random = Random(0 if name == "merged" else 1)
    rows = []
    for number in range(240):
        phrase = f"{PHRASES[number % len(PHRASES)]}, number {number}."
        right, other = (TONES[number % 4], TONES[(number + 1) % 4]) if labels else (f"answer {number}", f"no answer {number}")
        wrong = name == "base" or number in WRONG[name]
        rendered = (TONE if labels else QUESTION).render_prompt({"phrase": phrase, "Question": phrase, "Subject": "life"})
        predicted = (INVALID if labels and name == "base" else other) if wrong else right
        row = {"source": f"data/raw/rows.jsonl row {number + 1}", "prompt": rendered, "expected": right, "predicted": predicted}
        row["answer"] = "I think" if predicted == INVALID else predicted
        if labels:
            confidence = random.uniform(0.3, 0.9) if wrong else 1 - random.uniform(0, 0.6) ** 2
            known = number % 4 == 0 if name == "base" else not wrong  # base knows the first label alone
            row |= {"top_label": right if known else other, "confidence": f"{confidence:.4f}"}
            row |= {} if name == "base" else {"raw_confidence": f"{(1 + confidence) / 2:.4f}"}
        rows.append(row)
    return rows


def evaluated(name: str, rows: list[dict[str, str]], labels: bool) -> dict[str, Any]:
    """The figures of predictions, as `stages.evaluate` writes them, and one of the user's own metric."""
    expected, predicted = ([row[key] for row in rows] for key in ("expected", "predicted"))
    perplexity = {"base": 31.7, "merged": 1.0581, "onnx": 1.0694}[name]
    known = {"base": (0.61, 24.1), "merged": (0.55, 30.2), "onnx": (0.54, 31.5)}[name]
    retained = {"choices": {"accuracy": known[0], "rows": 100}, "text": {"perplexity": known[1], "tokens": 1100}}
    if not labels:
        return generation_metrics(expected, predicted, 0.95) | {"token_f1": 0.6127, "perplexity": perplexity, "own_metric": 0.25}
    columns = ("confidence",) if name == "base" else ("raw_confidence", "confidence")
    *_, error = errors = [
        round(sum(abs(bin_.confidence - bin_.right) * bin_.rows for bin_ in bins_of(rows, column)) / len(rows), 4)
        for column in columns
    ]
    figures = classification_metrics(expected, predicted, TONES, 0.95)
    likelihood_accuracy = round(sum(row["top_label"] == row["expected"] for row in rows) / len(rows), 4)
    likelihood: dict[str, Any] = {"perplexity": perplexity, "likelihood_accuracy": likelihood_accuracy}
    likelihood |= {"calibration_error": errors[0], "brier": 0.1213, "nll": 0.2511}
    if name != "base":
        likelihood |= {"temperature": 1.35, "calibrated": {"calibration_error": error, "brier": 0.1105, "nll": 0.2204}}
    likelihood["accuracy_at_coverage"] = {"0.5": 1.0, "0.8": 0.9896, "0.9": 0.9722, "0.95": 0.9649}
    return figures | likelihood | {"retained": retained, "own_metric": 0.25}


def write_metrics(folder: Path, tables: dict[str, list[dict[str, str]]], changed: int, labels: bool) -> None:
    """The metrics of all stages but evaluate."""
    right = {name: [row["predicted"] == row["expected"] for row in rows] for name, rows in tables.items()}
    pairs = list(zip(right["merged"], right["onnx"], strict=True))
    write_json(folder / "prepare.json", prepared(labels))
    trained = {"parameters": 139399488, "trainable_parameters": 4884480, "steps": 86, "train_loss": 0.2394, "eval_loss": 0.072}
    write_json(folder / "train.json", trained)
    write_json(folder / "build.json", {"precision": "int4", "execution_provider": "cpu", "size_mb": 117.15})
    compared = {"tokenized_differently": 0, "rows": 240, "changed": changed, "p_value": 0.5811}
    compared |= {"only_merged_right": pairs.count((True, False)), "only_onnx_right": pairs.count((False, True))}
    compared |= {"flipped_share": 0.0292} if labels else {}
    write_json(folder / "compare.json", compared | {"tokens": 512, "top1_agreement": 0.9746, "mean_kl": 0.0394})
    for name, factor in (("merged", 1.0), ("onnx", 2.1)):
        write_json(folder / "benchmark" / f"{name}.json", timed(factor))


def prepared(labels: bool) -> dict[str, Any]:
    """What `stages.prepare` counts."""
    counts = [60, 190, 420, 310, 150, 50, 20]
    figures: dict[str, Any] = {
        "rows": 1206,
        "dropped": {"duplicates": 4, "conflicting_labels": 2, "overlong": 0, "max_samples": 0},
        "truncated": 0,
        "overlap_between_splits": 0,
        "splits": {"train": 900, "validation": 60, "test": 240},
        "train_sequences": 900,
        "tokens": {"min": 19, "median": 25.0, "max": 40, "sum": 31327},
        "lengths": {"edges": [19, 22, 25, 28, 31, 34, 37, 41], "counts": counts},
        "source_max_len": 256 if labels else 64,
    }
    return figures | ({"labels": dict.fromkeys(sorted(TONES), 300)} if labels else {})


def timed(factor: float) -> dict[str, Any]:
    """What `stages.benchmark` measures; the speed of the merged model times `factor`."""

    def spread(median: float) -> dict[str, float]:
        return {"median": round(median, 1), "min": round(0.95 * median, 1), "max": round(1.08 * median, 1)}

    batches = {
        f"batch_{size}": {
            "time_to_first_token_ms": spread(1900 * size / factor),
            "prefill_tokens_per_second": spread(130 * factor),
            "decode_tokens_per_second": spread(38.6 * factor * size**0.5),
        }
        for size in (1, 4)
    }
    return {
        "machine": {"cpu": "AMD EPYC 7B13", "cores": 2, "gpu": None},
        "prompt_tokens": 256,
        "new_tokens": 32,
        "repetitions": 5,
        "load_seconds": round(2.4 / factor, 2),
        "peak_memory_mb": round(1460 / factor),
        "size_mb": 541.62 if factor == 1 else 117.15,
        **batches,
    }


def write_curves(folder: Path) -> None:
    """Loss curves as DVCLive writes them."""
    random = Random(2)
    train = [(step, 2.2 * 0.86 ** (step / 4) + random.uniform(0.02, 0.12)) for step in range(5, 90, 5)]
    for name, points in (("train", train), ("eval", [(40, 0.12), (80, 0.064), (86, 0.072)])):
        (folder / name).mkdir(parents=True)
        lines = [f"{step}\t{loss}\n" for step, loss in points]
        (folder / name / "loss.tsv").write_text("step\tloss\n" + "".join(lines), encoding="utf-8")
