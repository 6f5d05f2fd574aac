"""The account of an import: each field of the configuration, and what became of it."""

from collections import Counter
from typing import Any

from rich.markup import escape
from rich.table import Table

from tools.import_olive.fate import Kind, Line

WIDEST = 40  # characters of a value that are shown


def table(lines: list[Line]) -> Table:
    """One line for each field, in the order of the sections."""
    drawn = Table()
    for name in ("in the Olive configuration", "value", "", "here"):
        drawn.add_column(name, overflow="fold")
    for line in lines:
        cells = (line.leaf.path, shown(line.leaf.value), line.fate.kind.value, line.fate.said)
        drawn.add_row(*map(escape, cells), style="red" if line.fate.kind is Kind.refused else None)
    return drawn


def shown(value: Any) -> str:
    """A value in the table."""
    text = str(value)
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def summary(lines: list[Line]) -> str:
    """How many fields had which fate."""
    counts = Counter(line.fate.kind for line in lines)
    return ", ".join(f"{counts[kind]} {kind.value}" for kind in Kind)
