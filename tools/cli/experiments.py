"""Experiments side by side, in a terminal's width: `make exp-show`, with REV=... those of another commit.

Of all metrics and parameters that `dvc exp show` lists, the figures that decide, and for each run what makes it differ.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from dvc.api import exp_show
from dvc.exceptions import DvcException
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scmrepo.exceptions import SCMError

from tunepress.config.params import Composed
from tunepress.core.errors import InputError, one_line
from tunepress.core.pipeline import shipped_answers
from tunepress.inference.metrics import CHANCE, differences
from tunepress.text.labels import SCORES

FIGURES = {  # of metrics/summary.json and metrics/speed.json, and how they are written
    **dict.fromkeys(SCORES, ".3f"),
    "drop": ".3f",
    "kl": ".4f",
    "size_mb": ".1f",
    "tokens_s": ".1f",
    "gate": "",
}
UNREADABLE = "!"  # DVC's mark for all values of a file that a commit's dvc.yaml names and the commit lacks
FILES = ("metrics/summary.json:", "metrics/speed.json:")
FOLLOWING = re.compile(r"\.(logging_steps|eval_steps)$|^base_model\.(?!name$)|^dvc\.")  # another parameter tells as much

MARK = "*"
CAPTION = (
    f"{MARK} the int4 model differs from the commit's on the same rows by more than chance: p < {CHANCE} by McNemar's exact test "
    "with Holm's correction"
)

Row = dict[str, Any]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.cli.experiments", description=__doc__.splitlines()[0])
    parser.add_argument("--rev", default="HEAD", help="commit whose experiments are shown (default: %(default)s)")
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        rows = read(revs=parser.parse_args().rev)
        console.print(table(rows, p_values(rows)))
    except InputError as error:
        sys.exit(f"exp-show: {error}")


def read(**which: Any) -> list[Row]:
    """The working tree, commits, and the experiments that hang on them, with the metrics and parameters that each has.

    Args:
        which: commits, as `dvc.api.exp_show` takes them.

    Raises:
        InputError: DVC cannot tell.
    """
    try:
        rows: list[Row] = exp_show(**which)
    except (DvcException, SCMError) as error:
        raise InputError(f"dvc exp show: {one_line(error)}") from error
    return [{name: value for name, value in row.items() if value != UNREADABLE} for row in rows]


def p_values(rows: list[Row]) -> dict[str, float]:
    """By the revision of an experiment, whether its int4 model differs from the commit's by more than chance on the same rows.

    Args:
        rows: of `read`.
    """
    commit = commit_of(rows)
    if commit["rev"] == "workspace":  # a project without commits
        return {}
    experiments = [row["rev"] for row in rows if row["typ"] != "baseline" and row["State"] in (None, "Success")]
    reference, *others = map(shipped_answers, (commit["rev"], *experiments))
    if not reference:  # they are not in the cache
        return {}
    compared = zip(experiments, differences(reference, others), strict=True)
    return {revision: p_value for revision, p_value in compared if p_value is not None}


def commit_of(rows: list[Row]) -> Row:
    """The run of the commit that the experiments hang on."""
    return next((row for row in rows if row["typ"] == "baseline" and row["rev"] != "workspace"), rows[0])


def table(rows: list[Row], p_values: Mapping[str, float] | None = None) -> Table:
    """One line for each run.

    Args:
        rows: of `read`.
        p_values: of the difference of an experiment's answers from the commit's, by revision.
    """
    p_values = p_values or {}
    # DVC puts the file's name before a name that two files have
    rows = [{name.partition(".json:")[2] if name.startswith(FILES) else name: row[name] for name in row} for row in rows]
    figures = [name for name in FIGURES if any(row.get(name) is not None for row in rows)]
    drawn = Table(caption=CAPTION if p_values else None, caption_justify="left")
    drawn.add_column("experiment", overflow="fold", min_width=12)
    for name in figures:
        broken_bounds = name == "gate"  # as long as they are many
        drawn.add_column(name, justify="right", no_wrap=not broken_bounds, max_width=11 if broken_bounds else None)
    drawn.add_column("what differs", overflow="fold")
    commit = commit_of(rows)
    for row in rows:
        mark = MARK if p_values.get(row["rev"], 1.0) < CHANCE else ""
        cells = [written(row.get(name), FIGURES[name]) + (mark if name in SCORES else "") for name in figures]
        drawn.add_row(escape(row["Experiment"] or row["rev"]), *cells, escape("\n".join(remarks(row, commit))))
    return drawn


def remarks(row: Row, commit: Row) -> Iterator[str]:
    """State if it did not end well, image, and the parameters that differ from those of the commit."""
    if row["State"] not in (None, "Success"):
        yield row["State"].lower()
    if row.get("image") not in (None, "None"):  # where another run has one, DVC says None in words
        yield f"image={row['image']}"
    sections = {field.name for field in fields(Composed)}
    for name in row:
        if name in FIGURES or FOLLOWING.search(name):
            continue
        if name.partition(".")[0] in sections and row[name] != commit.get(name, row[name]):
            yield f"{name}={written(row[name], 'g')}"


def written(value: Any, form: str) -> str:
    """A cell of the table; DVC returns everything except numbers as text."""
    return format(value, form) if isinstance(value, float) else value or "-"


if __name__ == "__main__":
    main()
