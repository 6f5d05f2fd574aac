"""Labels: which of them a model's answer names."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

INVALID = "(invalid)"  # a predicted label where the answer is none


def find_label(answer: str, labels: Sequence[str]) -> str:
    """The label that an answer begins with, as a whole word or number; INVALID if there is none.

    Case does not matter, except between labels that differ in nothing else.
    """
    return next((label for label, pattern in _patterns(tuple(labels)) if pattern.match(answer)), INVALID)


def labels_problem(labels: Sequence[str]) -> str | None:
    """What is wrong with data.labels, None where nothing is."""
    seen = set()
    for label in labels:
        if not label or label != label.strip():
            return f"data.labels: {label!r} is empty or has white space around it, which rows lose; write it without, or drop it"
        if label == INVALID:
            return f"data.labels: {INVALID} is what answers without a label are called; use another name in the rows"
        composed = unicodedata.normalize("NFC", label)
        if composed in seen:
            return f"data.labels: {label!r} is in the list twice, or twice in different Unicode forms; drop one"
        seen.add(composed)
    return None


@lru_cache(maxsize=8)
def _patterns(labels: tuple[str, ...]) -> list[tuple[str, re.Pattern[str]]]:
    """Each label with what finds it at the beginning of an answer, the longest first."""
    ordered = sorted(labels, key=len, reverse=True)
    return [(label, re.compile(_expression(label), _flags(label, labels))) for label in ordered]


def _expression(label: str) -> str:
    # -1, 10, 0.5, 1,5, 1/2 and 1-2 are not 1; "can't" is not "can".
    before = r"(?<![-+.,\u2010-\u2015\u2212])" if label[0].isdigit() else ""
    after = r"\w|['\u2019]\w" + (r"|[-.,:/\u2010-\u2015\u2212]\d" if label[-1].isdigit() else "")
    return rf"\W*?{before}{re.escape(label)}(?!{after})"


def _flags(label: str, labels: Sequence[str]) -> re.RegexFlag:
    alike = re.compile(re.escape(label), re.IGNORECASE)
    return re.NOFLAG if any(other != label and alike.fullmatch(other) for other in labels) else re.IGNORECASE
