"""How a row of a data configuration becomes text."""

from collections.abc import Mapping
from string import Formatter
from typing import Any

from tools.olive.document import members, text
from tools.olive.fate import Fate, Kind, Rule, refused, to
from tunepress.config.data import CorpusStrategy
from tunepress.core.errors import InputError


def texts(flat: Mapping[str, Any], path: str) -> dict[str, Rule]:
    """The rules of the fields that say how a row becomes text."""
    columns = flat.get("text_cols") or []
    template = text(flat.get("text_template"), f"{path}: text_template")
    field = "text_template" if template else "text_cols"
    listed = [columns] if isinstance(columns, str) else members(columns, f"{path}: text_cols")
    template = template or " ".join(f"{{{name}}}" for name in listed)
    names = columns_of(template, path)
    if len(set(names)) < 2:
        raise InputError(f"{path}: no text_template of two columns or more; an answer, the last column, is learned for a prompt")
    values = {"data.text_template": template, "data.completion_column": names[-1]}
    strategy = flat.get("strategy", flat.get("corpus_strategy"))
    rule = to("data.corpus_strategy")
    if str(strategy) not in CorpusStrategy.__members__:
        rule = refused(f"data.corpus_strategy is one of {', '.join(CorpusStrategy.__members__)}")
    answer = Fate(Kind.taken, f"data.text_template, and data.completion_column={names[-1]}", values)
    return {field: answer, "strategy": rule, "corpus_strategy": rule}


def columns_of(template: str, path: str) -> list[str]:
    """The columns that a template names, in its order.

    Raises:
        InputError: it is none.
    """
    try:
        return [name for _, name, _, _ in Formatter().parse(template) if name]
    except ValueError as error:
        raise InputError(f"{path}: text_template: {error}; a brace that is none is written twice") from error
