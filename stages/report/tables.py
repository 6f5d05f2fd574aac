"""Tables of the report: what was measured, as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.metrics import confusion_matrix

from stages.report.figures import CANDIDATES, PROBABILITIES, TIMED, Run
from stages.report.gate import Verdict
from tunepress.text.labels import INVALID

SPEEDS = {
    "time_to_first_token_ms": "to the first token, ms",
    "prefill_tokens_per_second": "prompt, tokens/s",
    "decode_tokens_per_second": "answer, tokens/s",
}


@dataclass(frozen=True)
class Table:
    """Cells as text; the first of each row names it."""

    name: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Confusion:
    """One candidate's answers: for each expected label, in `labels`, how often it gave each of `answers`."""

    name: str
    labels: Sequence[str]
    answers: Sequence[str]
    counts: Sequence[Sequence[int]]


def scores(run: Run) -> Table:
    """All metrics, with a column for each candidate."""
    level = f"{run.evaluate['onnx']['confidence_level']:.0%} interval"
    intervals = [run.interval(name) for name in CANDIDATES]
    rows = [
        [words(run.score), *(figure(run.score_of(name)) for name in CANDIDATES)],
        [f"{level}, from", *(figure(low) for low, _ in intervals)],
        [f"{level}, to", *(figure(high) for _, high in intervals)],
    ]
    names = run.all_names[1:]
    if run.by_likelihood("base"):  # its score is not that of its answers, which follows
        rows.append([f"{words(run.score)} of the answers", *(figure(run.evaluate[name][run.score]) for name in CANDIDATES)])
    rows += [[words(key), *(figure(run.evaluate[name][key]) for name in CANDIDATES)] for key in names]
    return Table("scores", caption(run), ["", *CANDIDATES], rows)


def caption(run: Run) -> str:
    """The rows, and how base was measured."""
    base = f"; {words(run.score)} of base is that of its most likely label" if run.by_likelihood("base") else ""
    return f"{run.rows} that no model was trained on{base}"


def baselines(run: Run, p_values: Mapping[str, float]) -> Table:
    """What cheaper methods reach, and whether the difference from onnx is more than chance."""
    level = f"{run.evaluate['onnx']['confidence_level']:.0%} interval"
    rows = []
    for name, speed in run.baseline_speeds.items():
        low, high = run.interval(name)
        speeds = [f"{speed['seconds_to_make']:.1f}", f"{speed['ms_per_answer']:.1f}", f"{speed['size_mb']:,.1f}"]
        rows.append([words(name), figure(run.score_of(name)), f"{low:.3f} to {high:.3f}", f"{p_values[name]:.2g}", *speeds])
    head = ["", words(run.score), level, "p against onnx", "seconds to make", "ms an answer", "MB"]
    return Table("baselines", f"Cheaper methods on the same {run.rows}; p of the exact McNemar test", head, rows)


def gate(verdicts: Sequence[Verdict]) -> Table:
    """Each bound and what was measured."""
    rows = [
        [verdict.name, f"{verdict.bound:g}", f"{verdict.value:g}", "kept" if verdict.passed else "broken"] for verdict in verdicts
    ]
    return Table("gate", "Bounds of gate", ["bound", "set to", "measured", "verdict"], rows)


def by_dataset(run: Run) -> Table:
    """The score of each candidate on the rows of each of several datasets."""
    of_candidates = [run.evaluate[name]["datasets"] for name in CANDIDATES]
    rows = [
        [name, *(figure(metrics[name][run.score]) for metrics in of_candidates), f"{of_candidates[0][name]['rows']:,}"]
        for name in of_candidates[0]
    ]
    return Table("by-dataset", f"{words(run.score)} of the answers, by dataset", ["dataset", *CANDIDATES, "rows"], rows)


def per_class(run: Run) -> Table:
    """Precision, recall and F1 of each label as the shipped model answers."""
    rows = [
        [label, *(figure(metrics[name]) for name in ("precision", "recall", "f1")), f"{metrics['rows']:,}"]
        for label, metrics in run.evaluate["onnx"]["per_class"].items()
    ]
    return Table("per-class", "onnx, label by label", ["label", "precision", "recall", "F1", "rows"], rows)


def confusions(predictions: Mapping[str, Sequence[Mapping[str, str]]], labels: Sequence[str]) -> list[Confusion]:
    """A confusion matrix of each candidate, all with the same columns."""
    predicted = {name: [row["predicted"] for row in rows] for name, rows in predictions.items()}
    columns = [*labels, *([INVALID] if any(INVALID in answers for answers in predicted.values()) else [])]
    matrices = []
    for name, rows in predictions.items():
        counts = confusion_matrix([row["expected"] for row in rows], predicted[name], labels=columns)[: len(labels)]
        matrices.append(Confusion(name, labels, columns, counts.tolist()))
    return matrices


def json_fields(run: Run) -> Table:
    """The share of the rows in which each field of the JSON is right, and what guidance changed."""
    metrics = [run.evaluate[name] for name in CANDIDATES]
    rows = [[pointer, *(figure(of.get("fields", {}).get(pointer, 0.0)) for of in metrics)] for pointer in metrics[-1]["fields"]]
    for key in ("field_accuracy", "schema_valid_rate", "exact_match"):
        rows.append([words(key), *(figure(of[key]) for of in metrics)])
    for key in ("schema_valid_rate", "exact_match"):
        if "unguided" in metrics[-1]:
            rows.append([f"{words(key)} without guidance", *(figure(of["unguided"][key]) for of in metrics)])
    if speeds := run.benchmark["onnx"].get("guidance"):
        rows.append(["seconds an answer", "", "", f"{speeds['guided_seconds']:.3g}"])
        rows.append(["seconds an answer without guidance", "", "", f"{speeds['free_seconds']:.3g}"])
    return Table("fields", f"JSON, field by field, {run.rows}", ["JSON pointer", *CANDIDATES], rows)


def probabilities(run: Run) -> Table:
    """What the probabilities of labels are worth, before and after the temperature."""
    pair = [run.evaluate[name] for name in TIMED]
    rows = [[words(key), *(figure(metrics[key]) for metrics in pair)] for key in PROBABILITIES]
    if "temperature" in pair[1]:
        rows.append(["temperature", *(f"{metrics['temperature']:g}" if "temperature" in metrics else "" for metrics in pair)])
        rows += [[f"{words(key)} after it", *(figure(run.calibrated(name)[key]) for name in TIMED)] for key in PROBABILITIES]
    for coverage in pair[1]["accuracy_at_coverage"]:
        shares = [figure(metrics["accuracy_at_coverage"][coverage]) for metrics in pair]
        rows.append([f"accuracy of the most certain {float(coverage):.0%}", *shares])
    if "coverage" in pair[1]:
        answered = [metrics["selective_accuracy"] for metrics in pair]
        rows.append(["share of the rows that are answered", *(figure(metrics["coverage"]) for metrics in pair)])
        rows.append(["accuracy of these", *("none" if value is None else figure(value) for value in answered)])
    return Table("probabilities", f"Probabilities of labels, {run.rows}", ["", *TIMED], rows)


def retained(run: Run) -> Table:
    """What the models know of other subjects."""
    rows = [[words(name), *map(figure, values)] for name, values in run.retained.items()]
    return Table("retained", "Other subjects, evaluate.retained", ["", *CANDIDATES], rows)


def agreement(run: Run) -> Table:
    """The agreement of the merged model and the shipped one."""
    figures = run.compare
    rows = [
        ["rows answered differently", f"{figures['changed']:,} of {figures['rows']:,}"],
        ["right before, wrong after", f"{figures['only_merged_right']:,}"],
        ["wrong before, right after", f"{figures['only_onnx_right']:,}"],
        ["p of the difference, exact McNemar test", figure(figures["p_value"])],
        ["tokens for which both hold the same most probable", f"{figures['top1_agreement']:.2%} of {figures['tokens']:,}"],
        ["mean Kullback-Leibler divergence, nats a token", f"{figures['mean_kl']:.4g}"],
    ]
    if "flipped_share" in figures:
        rows.append(["rows whose most likely label is another", f"{figures['flipped_share']:.2%}"])
    if "tokenized_differently" in figures:
        rows.append(["rows that the two tokenizers split differently", f"{figures['tokenized_differently']:,}"])
    return Table("agreement", "merged against onnx", ["", "figure"], rows)


def speed(run: Run) -> Table:
    """Seconds, memory and tokens a second: medians, with minimum and maximum in brackets."""
    pair = [run.benchmark[name] for name in TIMED]
    rows = [
        ["size on disk, MB", *(f"{benchmark['size_mb']:,.0f}" for benchmark in pair)],
        ["loading, s", *(f"{benchmark['load_seconds']:.2f}" for benchmark in pair)],
        ["peak memory, MB", *(f"{benchmark['peak_memory_mb']:,.0f}" for benchmark in pair)],
    ]
    for batch in (key for key in pair[0] if key.startswith("batch_")):
        prompts = batch.removeprefix("batch_")
        at_once = "one prompt" if prompts == "1" else f"{prompts} prompts at once"
        for key in pair[0][batch]:
            rows.append([f"{at_once}: {SPEEDS.get(key, words(key))}", *(spread(benchmark[batch][key]) for benchmark in pair)])
    first = pair[1]
    machine = ", ".join(filter(None, (first["machine"]["cpu"], f"{first['machine']['cores']} cores", first["machine"]["gpu"])))
    work = f"{first['prompt_tokens']:,} tokens asked, {first['new_tokens']:,} answered, median of {first['repetitions']}"
    return Table("speed", f"{machine}; {work} (least to most)", ["", *TIMED], rows)


def data(run: Run) -> Table:
    """How many rows were read, used and dropped."""
    prepare = run.prepare
    rows = [["read", f"{prepare['rows']:,}"]]
    rows += [[f"for {'training' if name == 'train' else name}", f"{count:,}"] for name, count in prepare["splits"].items()]
    rows += [[f"dropped: {words(name)}", f"{count:,}"] for name, count in prepare["dropped"].items()]
    rows += [
        ["truncated", f"{prepare['truncated']:,}"],
        ["prompts in two splits", f"{prepare['overlap_between_splits']:,}"],
        ["tokens of a row, median and longest", f"{prepare['tokens']['median']:g}, {prepare['tokens']['max']:,}"],
    ]
    return Table("data", "Where they went", ["", "rows"], rows)


def training(run: Run) -> Table:
    """Parameters, steps and losses of the training."""
    names = {"parameters": "parameters", "trainable_parameters": "trained of them", "steps": "optimizer steps"}
    rows = [[label, f"{run.train[key]:,}"] for key, label in names.items()]
    losses = {"train_loss": "mean loss of training", "eval_loss": "loss of validation at the end"}
    rows += [[label, figure(run.train[key])] for key, label in losses.items() if run.train.get(key) is not None]
    return Table("training", "What was trained", ["", "figure"], rows)


def pairs(name: str, caption: str, head: Sequence[str], values: Mapping[str, str]) -> Table:
    """A table of names and values."""
    return Table(name, caption, head, list(values.items()))


def parameter(value: Any) -> str:
    """A parameter's value: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def figure(value: float) -> str:
    """Three decimal places, none for counts and large numbers."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def spread(measured: Mapping[str, float]) -> str:
    """Median with minimum and maximum."""
    digits = 0 if measured["median"] >= 100 else 1
    return "{median:,.{0}f} ({min:,.{0}f} to {max:,.{0}f})".format(digits, **measured)


def words(name: str) -> str:
    """A key as words."""
    return name.replace("_", " ")
