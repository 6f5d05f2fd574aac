"""Labels: which of them a model's answer names."""

import re
from collections.abc import Sequence

INVALID = "(invalid)"  # a predicted label where the answer is none


def label_of(answer: str, labels: Sequence[str]) -> str:
    """The label that an answer begins with, whatever its case, as a whole word; INVALID if there is none."""
    longest_first = sorted(labels, key=len, reverse=True)
    found = (label for label in longest_first if re.match(rf"\W*?{re.escape(label)}(?!\w)", answer, flags=re.IGNORECASE))
    return next(found, INVALID)
