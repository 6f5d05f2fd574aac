"""Example answers: a few rows of the test set in a readable form."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunepress.inference.metrics import is_right
from tunepress.text.prompt import Prompt
from tunepress.text.template import literals

COUNT = 6  # of each kind
LONGEST = 400  # characters of a text that are shown

Rows = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Example:
    """One row.

    Attributes:
        source: file and row.
        text: the input, without the template.
        expected: the right answer.
        answers: by model, with the confidence if there is one.
    """

    source: str
    text: str
    expected: str
    answers: dict[str, str]


def right(onnx: Rows, prompt: Prompt) -> list[Example]:
    """The first right answers of the shipped model, one of each label first."""
    rows = [row for row in onnx if is_right(row)]
    first = {row["expected"]: row for row in reversed(rows)} if prompt.labels else {}
    ordered = [first[label] for label in prompt.labels or () if label in first]
    ordered += [row for row in rows if row not in ordered]
    return [_example(row, prompt, "onnx") for row in ordered[:COUNT]]


def wrong(onnx: Rows, prompt: Prompt) -> list[Example]:
    """Wrong answers of the shipped model, the most confident first."""
    rows = sorted((row for row in onnx if not is_right(row)), key=lambda row: -(confidence(row) or 0))
    return [_example(row, prompt, "onnx") for row in rows[:COUNT]]


def changed(rows: Rows, prompt: Prompt) -> list[Example]:
    """The first rows that the shipped and the merged model answer differently."""
    return [
        Example(
            row["source"],
            text_of(row["prompt"], prompt),
            shown(row["expected"]),
            {name: shown(row[name]) for name in ("merged", "onnx")},
        )
        for row in rows[:COUNT]
    ]


def confidence(row: Mapping[str, str]) -> float | None:
    """The probability of the predicted label; None unless it is also the most likely one."""
    return float(row["confidence"]) if row.get("top_label") == row["predicted"] else None


def text_of(rendered: str, prompt: Prompt) -> str:
    """The columns of a prompt; several are on a line each, with their names."""
    values = columns_of(rendered, prompt)
    if len(values) == 1:
        return shown(*values.values())
    return "\n".join(f"{name}: {shown(value)}" for name, value in values.items())


def columns_of(rendered: str, prompt: Prompt) -> dict[str, str]:
    """Values of the template that give this prompt."""
    pieces = literals(prompt.prompt or "")
    pattern = "".join(re.escape(literal) + ("" if name is None else "(.*?)") for literal, name in pieces)
    match = re.fullmatch(pattern, rendered, flags=re.DOTALL)
    names = [name for _, name in pieces if name is not None]
    return dict(zip(names, match.groups(), strict=True)) if match and names else {"prompt": rendered}


def shown(text: str) -> str:
    """A text, shortened to a readable length."""
    text = text.strip()
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1].rsplit(maxsplit=1)[0]} …"


def _example(row: Mapping[str, str], prompt: Prompt, name: str) -> Example:
    probability = confidence(row)
    answer = shown(row["predicted"]) if probability is None else f"{row['predicted']} ({probability:.2f})"
    return Example(row["source"], text_of(row["prompt"], prompt), shown(row["expected"]), {name: answer})
