"""Answers as figures: what a model said against what the rows say, through scikit-learn, scipy and rouge-score."""

import re
from collections.abc import Sequence
from typing import Any

from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

INVALID = "(invalid)"  # a predicted label where the answer is none

Figures = dict[str, Any]


def label_of(answer: str, labels: Sequence[str]) -> str:
    """The label that an answer begins with, whatever its case, as a whole word; INVALID if there is none."""
    longest_first = sorted(labels, key=len, reverse=True)
    found = (label for label in longest_first if re.match(rf"\W*?{re.escape(label)}(?!\w)", answer, flags=re.IGNORECASE))
    return next(found, INVALID)


def classification(expected: list[str], predicted: list[str], labels: Sequence[str], confidence_level: float) -> Figures:
    """Accuracy with its interval (Wilson), macro-F1, the share of invalid answers, and figures of each label."""
    correct = sum(one == other for one, other in zip(expected, predicted, strict=True))
    precision, recall, f1, support = precision_recall_fscore_support(expected, predicted, labels=labels, zero_division=0.0)
    per_class = zip(labels, precision, recall, f1, support, strict=True)
    return {
        "rows": len(expected),
        "accuracy": round(accuracy_score(expected, predicted), 4),
        **interval(correct, len(expected), confidence_level, "accuracy"),
        "macro_f1": round(f1_score(expected, predicted, labels=labels, average="macro", zero_division=0.0), 4),
        "invalid_rate": round(predicted.count(INVALID) / len(predicted), 4),
        "per_class": {
            label: {"precision": round(p, 4), "recall": round(r, 4), "f1": round(f, 4), "rows": int(rows)}
            for label, p, r, f, rows in per_class
        },
    }


def generation(expected: list[str], answers: list[str], confidence_level: float) -> Figures:
    """Share of exact answers with its interval, and the mean ROUGE-L F-measure."""
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    exact = sum(one.split() == other.split() for one, other in zip(expected, answers, strict=True))
    rouge = [scorer.score(one, other)["rougeL"].fmeasure for one, other in zip(expected, answers, strict=True)]
    return {
        "rows": len(expected),
        "exact_match": round(exact / len(expected), 4),
        **interval(exact, len(expected), confidence_level, "exact_match"),
        "rouge_l": round(sum(rouge) / len(rouge), 4),
    }


def interval(hits: int, rows: int, confidence_level: float, name: str) -> dict[str, float]:
    """Wilson's score interval of a share, which holds near 0 and 1 too."""
    bounds = binomtest(hits, rows).proportion_ci(confidence_level, method="wilson")
    return {f"{name}_low": round(bounds.low, 4), f"{name}_high": round(bounds.high, 4), "confidence_level": confidence_level}
