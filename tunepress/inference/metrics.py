"""Metrics of a model's answers against the expected ones, with scikit-learn, scipy and rouge-score."""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from statistics import fmean
from typing import Any

from jsonschema.protocols import Validator
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from tunepress.inference.tool_calls import equal_json, parse_tool_calls
from tunepress.text.json_answers import canonical, fields, parse, schema_problem, validator
from tunepress.text.labels import INVALID, find_label
from tunepress.text.prompt import Prompt

CHANCE = 0.05  # p-values below are more than chance

Metrics = dict[str, Any]
Metric = Callable[[list[str], list[str]], float]
Predictions = Sequence[Mapping[str, str]]  # rows with `source`, `expected` and `predicted`, as in predictions/


def comparable(answer: str, prompt: Prompt) -> str:
    """An answer as it is compared: the label in it, its JSON in canonical form, or its text without white space around it."""
    if prompt.labels:
        return find_label(answer, prompt.labels)
    return canonical(answer) if prompt.json_schema else answer.strip()


def answer_metrics(expected: list[str], predicted: list[str], prompt: Prompt, confidence_level: float) -> Metrics:
    """The metrics of `comparable` answers of a task with labels, of one with answers in JSON, or of one with free text."""
    if prompt.labels:
        return classification_metrics(expected, predicted, prompt.labels, confidence_level)
    metrics = generation_metrics(expected, predicted, confidence_level)
    return metrics | (json_metrics(expected, predicted, validator(prompt.json_schema)) if prompt.json_schema else {})


def classification_metrics(expected: list[str], predicted: list[str], labels: Sequence[str], confidence_level: float) -> Metrics:
    """Accuracy with its Wilson interval, macro-F1, the share of invalid answers, and the metrics of each label."""
    correct = sum(label == answer for label, answer in zip(expected, predicted, strict=True))
    precision, recall, f1, support = precision_recall_fscore_support(expected, predicted, labels=labels, zero_division=0.0)
    per_class = zip(labels, precision, recall, f1, support, strict=True)
    return {
        "rows": len(expected),
        "accuracy": round(accuracy_score(expected, predicted), 4),
        **wilson_interval(correct, len(expected), confidence_level, "accuracy"),
        "macro_f1": round(f1_score(expected, predicted, labels=labels, average="macro", zero_division=0.0), 4),
        "invalid_rate": round(predicted.count(INVALID) / len(predicted), 4),
        "per_class": {
            label: {"precision": round(p, 4), "recall": round(r, 4), "f1": round(f, 4), "rows": int(rows)}
            for label, p, r, f, rows in per_class
        },
    }


class WordTokenizer:
    """A tokenizer for rouge-score that keeps words of any script; its own one drops everything except a to z and digits."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())


def generation_metrics(expected: list[str], answers: list[str], confidence_level: float) -> Metrics:
    """The share of exact matches with its Wilson interval, the mean F-measures of words (ROUGE-1) and of ROUGE-L, and, where
    an expected answer calls a function, the metrics of calls.
    """
    scorer = RougeScorer(["rouge1", "rougeL"], tokenizer=WordTokenizer())
    exact = sum(text.split() == answer.split() for text, answer in zip(expected, answers, strict=True))
    scores = [scorer.score(text, answer) for text, answer in zip(expected, answers, strict=True)]
    return {
        "rows": len(expected),
        "exact_match": round(exact / len(expected), 4),
        **wilson_interval(exact, len(expected), confidence_level, "exact_match"),
        "token_f1": round(fmean(score["rouge1"].fmeasure for score in scores), 4),  # ROUGE-1 is the same
        "rouge_l": round(fmean(score["rougeL"].fmeasure for score in scores), 4),
        **tool_call_metrics(expected, answers),
    }


def json_metrics(expected: list[str], answers: list[str], schema: Validator) -> Metrics:
    """The share of answers that match a schema, and the share of the expected fields that are equal in the answer, by field.

    Fields are named by JSON pointers. One that only the answer has does not count; the exact match finds it.
    """
    right: dict[str, list[bool]] = {}
    for text, answer in zip(expected, answers, strict=True):
        try:
            answered = dict(fields(parse(answer)))
        except ValueError:
            answered = {}
        for pointer, value in fields(parse(text)):
            right.setdefault(pointer, []).append(pointer in answered and equal_json(value, answered[pointer]))
    return {
        "schema_valid_rate": round(fmean(schema_problem(answer, schema) is None for answer in answers), 4),
        "field_accuracy": round(fmean(chain.from_iterable(right.values())), 4),
        "fields": {pointer: round(fmean(values), 4) for pointer, values in sorted(right.items())},
    }


def tool_call_metrics(expected: list[str], answers: list[str]) -> Metrics:
    """How many expected answers call functions, and the shares of these whose answers have equal calls and equal names.

    Arguments are compared as JSON values, several calls in their order; text around the calls does not count.

    Returns:
        The metrics, or nothing if no expected answer has a call.
    """
    right = names_right = rows = 0
    for text, answer in zip(expected, answers, strict=True):
        calls = parse_tool_calls(text)
        if not calls or None in calls:
            continue  # not a call, or one that no answer can match
        rows += 1
        answered = parse_tool_calls(answer)
        same_names = [call and call.name for call in answered] == [call and call.name for call in calls]
        names_right += same_names
        right += same_names and all(
            equal_json(call and call.arguments, other and other.arguments) for call, other in zip(calls, answered, strict=True)
        )
    if not rows:
        return {}
    return {
        "tool_calls": rows,
        "tool_call_accuracy": round(right / rows, 4),
        "tool_name_accuracy": round(names_right / rows, 4),
    }


def is_right(row: Mapping[str, str], answer: str = "predicted") -> bool:
    """Whether an answer in a row of predictions is the expected one; white space between words does not matter."""
    return row[answer].split() == row["expected"].split()


def wilson_interval(hits: int, rows: int, confidence_level: float, name: str) -> dict[str, float]:
    """The Wilson score interval of a share, which is also valid near 0 and 1."""
    low, high = wilson_bounds(hits, rows, confidence_level)
    return {f"{name}_low": round(low, 4), f"{name}_high": round(high, 4), "confidence_level": confidence_level}


def wilson_bounds(hits: int, rows: int, confidence_level: float) -> tuple[float, float]:
    """The bounds of the Wilson score interval."""
    bounds = binomtest(hits, rows).proportion_ci(confidence_level, method="wilson")
    return float(bounds.low), float(bounds.high)


def mcnemar(first_right: Sequence[bool], second_right: Sequence[bool]) -> Metrics:
    """McNemar's exact test: whether two models that answered the same rows differ in accuracy.

    Returns:
        The number of rows that only the first and only the second model has right, and the probability of a split at least
        as uneven between two equally good models; 1.0 if there are no such rows.
    """
    pairs = list(zip(first_right, second_right, strict=True))
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    p_value = mcnemar_p_value(only_first, only_second)
    return {"only_first_right": only_first, "only_second_right": only_second, "p_value": round(p_value, 4)}


def differences(reference: Predictions, others: Sequence[Predictions]) -> list[float | None]:
    """Whether models are better or worse than another one on the same rows by more than chance.

    Args:
        reference: predictions of the model that the others are compared with.
        others: of the other models; empty if there are none.

    Returns:
        For each the p-value of McNemar's exact test after Holm's correction for their number; None for one whose rows are not
        those of the reference.
    """
    right = list(map(is_right, reference))
    rows_of_reference = [(row["source"], row["expected"]) for row in reference]
    comparable = [
        number
        for number, rows in enumerate(others)
        if rows and [(row["source"], row["expected"]) for row in rows] == rows_of_reference
    ]
    p_values = holm([float(mcnemar(right, list(map(is_right, others[number])))["p_value"]) for number in comparable])
    result: list[float | None] = [None] * len(others)
    for number, p_value in zip(comparable, p_values, strict=True):
        result[number] = p_value
    return result


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of p-values for their number: small ones are multiplied by the number of those that are not smaller.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    corrected, least = [1.0] * len(p_values), 0.0
    for rank, (p_value, number) in enumerate(sorted((p_value, number) for number, p_value in enumerate(p_values))):
        least = max(least, min(1.0, p_value * (len(p_values) - rank)))
        corrected[number] = least
    return corrected


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """The p-value of McNemar's exact test; 1.0 where no row differs."""
    differing = only_first + only_second
    return float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0
