"""The account of an import: each field of the configuration, and what became of it."""

import re
from collections import Counter

from rich.markup import escape
from rich.table import Table

from tools.olive.document import Leaf, printable
from tools.olive.fate import Kind, Line

SECRET = re.compile("secret|password|token|credential|default_auth_params|sas|key$", re.IGNORECASE)
WIDEST = 60  # characters of a value that are shown


def table(lines: list[Line]) -> Table:
    """One line for each field, in the order of the sections."""
    drawn = Table(expand=True)
    for name, ratio in (("in the Olive configuration", 5), ("value", 2), ("", None), ("here", 4)):
        drawn.add_column(name, overflow="fold", ratio=ratio, no_wrap=ratio is None)
    for line in lines:
        cells = (line.leaf.path, shown(line.leaf), line.fate.kind.value, line.fate.said)
        drawn.add_row(*(escape(printable(cell)) for cell in cells), style="red" if line.fate.kind is Kind.refused else None)
    return drawn


def shown(leaf: Leaf) -> str:
    """A field's value in the table, where it is no secret."""
    if isinstance(leaf.value, str) and SECRET.search(leaf.path):
        return "(hidden)"
    text = str(leaf.value)
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def summary(lines: list[Line]) -> str:
    """How many fields had which fate."""
    counts = Counter(line.fate.kind for line in lines)
    return ", ".join(f"{counts[kind]} {kind.value}" for kind in Kind)
