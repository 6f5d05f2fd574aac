"""Answers as figures: what a model said against what the rows say, through scikit-learn, scipy and rouge-score."""

import re
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from tunepress.text.labels import INVALID

Metrics = dict[str, Any]
Metric = Callable[[list[str], list[str]], float]


def classification_metrics(expected: list[str], predicted: list[str], labels: Sequence[str], confidence_level: float) -> Metrics:
    """Accuracy with its interval (Wilson), macro-F1, the share of invalid answers, and figures of each label."""
    correct = sum(one == other for one, other in zip(expected, predicted, strict=True))
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
    """Splits a text in words of any script for rouge-score, whose own tokenizer drops all but a to z and digits."""

    def tokenize(self, text: str) -> list[str]:
        """The words of `text` in lower case."""
        return re.findall(r"\w+", text.lower())


def generation_metrics(expected: list[str], answers: list[str], confidence_level: float) -> Metrics:
    """Share of exact answers with its interval, and the mean F-measures of single words and of ROUGE-L."""
    scorer = RougeScorer(["rouge1", "rougeL"], tokenizer=WordTokenizer())
    exact = sum(one.split() == other.split() for one, other in zip(expected, answers, strict=True))
    scores = [scorer.score(one, other) for one, other in zip(expected, answers, strict=True)]
    return {
        "rows": len(expected),
        "exact_match": round(exact / len(expected), 4),
        **wilson_interval(exact, len(expected), confidence_level, "exact_match"),
        "token_f1": round(fmean(score["rouge1"].fmeasure for score in scores), 4),  # both count each word as often as it comes
        "rouge_l": round(fmean(score["rougeL"].fmeasure for score in scores), 4),
    }


def wilson_interval(hits: int, rows: int, confidence_level: float, name: str) -> dict[str, float]:
    """Wilson's score interval of a share, which holds near 0 and 1 too."""
    bounds = binomtest(hits, rows).proportion_ci(confidence_level, method="wilson")
    return {f"{name}_low": round(bounds.low, 4), f"{name}_high": round(bounds.high, 4), "confidence_level": confidence_level}


def mcnemar(first_right: Sequence[bool], second_right: Sequence[bool]) -> Metrics:
    """Whether two models that answered the same rows differ in how often they are right: McNemar's exact test.

    Returns:
        The rows that only the first and that only the second has right, and the probability of a split at least as uneven
        between two models that are equally good; 1.0 where there is no such row.
    """
    pairs = list(zip(first_right, second_right, strict=True))
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    differing = only_first + only_second
    p_value = binomtest(only_first, differing, 0.5).pvalue if differing else 1.0
    return {"only_first_right": only_first, "only_second_right": only_second, "p_value": round(float(p_value), 4)}
