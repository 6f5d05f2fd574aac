"""How a row becomes text: the template of a data configuration, its answer, and the labels of a classification."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Any

from tools.olive.document import members, string
from tools.olive.mapping import FieldMapping, MappedField, Rule, Status, Value, maps_to, unsupported
from tunepress.config.data import CorpusStrategy
from tunepress.core.errors import InputError

TEST_ROWS = "data.test_size: a share of the rows is kept for evaluate, while Olive trains on all; data.test_files uses other rows"
# The marks that begin a turn in the templates of chat models, such as <|assistant|>, <|im_start|>user, [INST] and ASSISTANT:.
ROLE = re.compile(
    r"""<(?!/)[^<>{}\n]*?(?P<token>assistant|chatbot|user|human|system)[^<>{}\n]*>
    |<[^<>{}\n]*>\s*(?P<after_token>assistant|model|user|human|system|tool)\b
    |(?P<bracket>\[/?INST\])
    |^\W*(?P<line>assistant|user|human|system)\W*:
    |\b(?P<capitals>(?-i:ASSISTANT|USER|HUMAN|SYSTEM)):""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
ASSISTANT = ("assistant", "chatbot", "model", "[/inst]")


def text_rules(flat: Mapping[str, Any], path: str) -> dict[str, Rule]:
    """The rules for the fields that render a row as text.

    Args:
        flat: the values of the data configuration by field.
        path: of the data configuration.

    Raises:
        InputError: the template is invalid, or has no column for the answer.
    """
    columns = flat.get("text_cols") or []
    template = string(flat.get("text_template"), f"{path}: text_template")
    field = "text_template" if template else "text_cols"
    listed = [columns] if isinstance(columns, str) else members(columns, f"{path}: text_cols")
    template = template or " ".join(f"{{{name}}}" for name in listed)
    answer = answer_column(template, path)
    values = {"data.text_template": template, "data.completion_column": answer}
    strategy = flat.get("strategy", flat.get("corpus_strategy"))
    rule = maps_to("data.corpus_strategy")
    if str(strategy) not in CorpusStrategy.__members__:
        rule = unsupported(f"data.corpus_strategy must be one of {', '.join(CorpusStrategy.__members__)}")
    mapping = FieldMapping(Status.mapped, f"data.text_template, and data.completion_column={answer}", values)
    return {field: mapping, "strategy": rule, "corpus_strategy": rule}


def answer_column(template: str, path: str) -> str:
    """The column that the assistant's last turn begins with; the last column if the template marks no turns.

    Raises:
        InputError: the template is invalid, or has fewer than two columns.
    """
    parts = columns_of(template, path)
    if len({name for _, name in parts}) < 2:
        raise InputError(f"{path}: text_template must have at least two columns, of which one is the answer")
    turns = [name for literal, name in parts[1:] if begins_answer(literal)]
    return (turns or [name for _, name in parts])[-1]


def columns_of(template: str, path: str) -> list[tuple[str, str]]:
    """The columns in a template, in order, each after the text before it.

    Raises:
        InputError: the template is invalid.
    """
    try:
        return [(literal, name) for literal, name, _, _ in Formatter().parse(template) if name]
    except ValueError as error:
        raise InputError(f"{path}: text_template: {error}; write a literal brace twice") from error


def begins_answer(text: str) -> bool:
    """Whether the text before a column ends in the assistant's turn."""
    roles = [mark.group(mark.lastgroup or 0).lower() for mark in ROLE.finditer(text)]
    return bool(roles) and roles[-1] in ASSISTANT


def derived_values(fields: list[MappedField]) -> list[Value]:
    """Values that follow from the fields of the rows."""
    mapped = {key: value for field in fields for key, value in field.mapping.values.items()}
    files, column = mapped.get("data.files") or [], mapped["data.completion_column"]
    labels = None
    reason = "free text; list the labels of a classification"
    if any(field.mapping.note for field in fields):
        reason = "the rows are not on this machine; list the labels of a classification"
    elif files and columns_of(mapped["data.text_template"], "")[-1][1] == column and all(Path(file).is_file() for file in files):
        labels = labels_of(files, column)
        reason = "the answers in the file; null for free text" if labels else reason
    whole = Value("train.completion_only_loss", False, "Olive trains on the prompt too")
    return [Value("data.labels", labels, reason), whole]


def labels_of(paths: list[str], column: str) -> list[str] | None:
    """The labels if the rows are a classification: few answers, each frequent."""
    from stages.prepare.rows import read_files

    answers = Counter(row.text(column).strip() for row in read_files(paths))
    classes = 2 <= len(answers) <= 20 and min(answers.values()) >= 10
    if classes and any("${" in answer for answer in answers):  # OmegaConf would interpolate it
        raise InputError(f"{paths[0]}: a label contains ${{, which params.yaml would interpolate; rename it in the rows")
    return sorted(answers) if classes else None
