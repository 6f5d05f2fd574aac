"""Labels: which one a model's answer contains."""

import json
import re
import unicodedata
from collections.abc import Container, Sequence
from functools import lru_cache
from typing import Any

INVALID = "(invalid)"  # the predicted label of an answer that does not begin with a label
ABSTAINED = "(abstained)"  # printed in place of a label whose probability is below evaluate.abstain_below
SCORES = ("accuracy", "exact_match")  # the metric that decides: the first where there are labels, the second for free text


def score_name(metrics: Container[str]) -> str:
    """The name of the metric that decides, of those that were measured."""
    return next(name for name in SCORES if name in metrics)


def find_label(answer: str, labels: Sequence[str]) -> str:
    """The label with which an answer begins, as a whole word or number; INVALID if it does not begin with one.

    Case does not matter, except between labels that differ only in case.
    """
    return next((label for label, pattern in _patterns(tuple(labels)) if pattern.match(answer)), INVALID)


def labels_problem(labels: Any) -> str | None:
    """What is wrong with data.labels; None if they are valid."""
    if not isinstance(labels, list):
        return f"data.labels: must be a list of texts or null, got {labels!r}"
    seen = set()
    for label in labels:
        if not isinstance(label, str):  # YAML reads yes as true and 010 as 8
            return f"data.labels: {json.dumps(label, default=str)} is not text in YAML; quote the label, as in ['yes', '010']"
        if not label or label != label.strip():
            return f"data.labels: {label!r} is empty or has white space around it, which is stripped from rows; correct it"
        if label in (INVALID, ABSTAINED):
            return f"data.labels: {label} is reserved for answers without a label; use another name in the rows"
        composed = unicodedata.normalize("NFC", label)
        if composed in seen:
            return f"data.labels: {label!r} is in the list twice, or twice in different Unicode forms; remove one"
        seen.add(composed)
    return None


@lru_cache(maxsize=8)
def _patterns(labels: tuple[str, ...]) -> list[tuple[str, re.Pattern[str]]]:
    """Each label with the pattern that matches it at the beginning of an answer, the longest label first."""
    ordered = sorted(labels, key=len, reverse=True)
    return [(label, re.compile(_expression(label), _flags(label, labels))) for label in ordered]


def _expression(label: str) -> str:
    # -1, 10, 0.5, 1,5, 1/2 and 1-2 are not 1; "can't" is not "can".
    before = r"(?<![-+.,\u2010-\u2015\u2212])" if label[0].isdigit() else ""
    after = r"\w|['\u2019]\w" + (r"|[-.,:/\u2010-\u2015\u2212]\d" if label[-1].isdigit() else "")
    return rf"\W*?{before}{re.escape(label)}(?!{after})"


def _flags(label: str, labels: Sequence[str]) -> re.RegexFlag:
    pattern = re.compile(re.escape(label), re.IGNORECASE)
    return re.NOFLAG if any(other != label and pattern.fullmatch(other) for other in labels) else re.IGNORECASE
