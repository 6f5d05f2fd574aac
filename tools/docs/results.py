"""The result table of README.md, from metrics/summary.json and metrics/speed.json."""

import json
from pathlib import Path
from typing import Any

from tools.docs.markdown import table as markdown_table
from tunepress.core.errors import InputError

SUMMARY, SPEED = Path("metrics/summary.json"), Path("metrics/speed.json")


def table() -> str:
    """The scores of the best baseline and the three models, and the speed of the one that is shipped.

    Raises:
        InputError: the last run was not a classification, or its metrics are missing.
    """
    summary, speed = read(SUMMARY), read(SPEED)
    try:
        baseline = summary["baseline"]
        base, accuracy, merged = summary["base"], summary["accuracy"], summary["accuracy"] + summary["drop"]
        size, tokens = f"{summary['size_mb']:.0f} MB", f"{speed['tokens_s']:.0f}"
        divergence = f"{summary['kl']:.4f}"
    except (KeyError, TypeError) as error:
        raise InputError(f"{SUMMARY}, {SPEED}: not those of the default recipe ({error}); run `make repro`") from error
    rows = [
        ["the best of majority class, TF-IDF, zero-shot and few-shot", f"{baseline:.3f}", "", ""],
        ["base model, by its most likely label", f"{base:.3f}", "", ""],
        ["fine-tuned and merged, float32", f"{merged:.3f}", "", ""],
        ["**int4 ONNX**", f"**{accuracy:.3f}**", size, tokens],
    ]
    note = f"The KL divergence of int4 from merged is {divergence}."
    return markdown_table(["", "accuracy", "size on disk", "tokens/s"], rows) + f"\n\n{note}"


def read(path: Path) -> dict[str, Any]:
    """A metrics file.

    Raises:
        InputError: there is no such file, or it is not JSON.
    """
    try:
        metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}; run `make repro`") from error
    return metrics
