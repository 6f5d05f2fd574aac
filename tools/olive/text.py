"""How a row becomes text: the template of a data configuration, its answer, and the labels of a classification."""

import re
from collections import Counter
from collections.abc import Mapping
from string import Formatter
from typing import Any

from tools.olive.document import members, string
from tools.olive.mapping import FieldMapping, MappedField, Rule, Status, Value, covered, mapped_to, maps_to, unsupported
from tunepress.config.data import CorpusStrategy
from tunepress.core.errors import InputError
from tunepress.remote.addresses import is_remote
from tunepress.text.template import column_names, escape

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
Part = tuple[str, str | None]  # a literal text, and the column after it
ASSISTANT = ("assistant", "chatbot", "model", "[/inst]")


def text_rules(flat: Mapping[str, Any], path: str) -> dict[str, Rule]:
    """The rules for the fields that render a row as text.

    Args:
        flat: the values of the data configuration by field.
        path: of the data configuration.

    Raises:
        InputError: the template is invalid, or has no column for the answer.
    """
    strategy = flat.get("strategy", flat.get("corpus_strategy"))
    rule = maps_to("data.corpus_strategy")
    if str(strategy) not in CorpusStrategy.__members__:
        rule = unsupported(f"data.corpus_strategy must be one of {', '.join(CorpusStrategy.__members__)}")
    rules = chat_rules(flat, path) if flat.get("chat_template") else template_rules(flat, path)
    return rules | {"strategy": rule, "corpus_strategy": rule}


def template_rules(flat: Mapping[str, Any], path: str) -> dict[str, Rule]:
    """The rules for rows that fill a template."""
    columns = flat.get("text_cols") or []
    template = string(flat.get("text_template"), f"{path}: text_template")
    field = "text_template" if template else "text_cols"
    listed = [columns] if isinstance(columns, str) else members(columns, f"{path}: text_cols")
    parts = parts_of(template, path) if template else [(" " * bool(number), name) for number, name in enumerate(listed)]
    answer = answer_column(parts, path)
    values = {"data.format": "template", "data.text_template": from_parts(parts), "data.completion_column": answer}
    mapping = FieldMapping(Status.mapped, f"data.text_template, and data.completion_column={answer}", values)
    no_chat = covered("data.text_template renders each row")
    return {field: mapping, "chat_template": no_chat, "message_col": no_chat}


def chat_rules(flat: Mapping[str, Any], path: str) -> dict[str, Rule]:
    """The rules for rows that are conversations."""
    column = string(flat.get("message_col"), f"{path}: message_col") or "messages"
    values = {"data.format": "messages", "data.use_chat_template": True, "data.field_messages": column}
    template, text = flat["chat_template"], "data.format=messages, with the base model's chat template"
    if isinstance(template, str):
        values["data.chat_template"] = template  # of which the experiment makes a file
        text = "data.format=messages, and data.chat_template is a file next to the experiment"
    mapping = FieldMapping(Status.mapped, text, values)
    if template is not True and not (isinstance(template, str) and re.search("{[{%]", template)):
        reason = "data.chat_template must be a file in Jinja; the base model's chat template is used"
        mapping = FieldMapping(Status.unsupported, reason, {key: values[key] for key in values if key != "data.chat_template"})
    chat = covered("chat_template renders each row, in Olive too")
    return {
        "chat_template": mapping,
        "message_col": mapped_to("data.field_messages", column),
        "text_template": chat,
        "text_cols": chat,
    }


def answer_column(parts: list[Part], path: str) -> str:
    """The column that the assistant's last turn begins with; the last column if the template marks no turns.

    Raises:
        InputError: there are fewer than two columns.
    """
    columns = [(literal, name) for literal, name in parts if name is not None]
    if len({name for _, name in columns}) < 2:
        raise InputError(f"{path}: text_template must have at least two columns, of which one is the answer")
    turns = [name for literal, name in columns[1:] if begins_answer(literal)]
    return (turns or [name for _, name in columns])[-1]


def parts_of(template: str, path: str) -> list[Part]:
    """The literal texts of Python's format syntax, which Olive uses, each with the column after it.

    Raises:
        InputError: the template is invalid, or formats a value.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"{path}: text_template: {error}; write a literal brace twice") from error
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion or not name or re.search(r"[.\[]", name)):
            field = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise InputError(
                f"{path}: text_template: {{{field}}} must be the bare name of a column; format the value in the rows"
            )
    return [(literal, name) for literal, name, _, _ in parts]


def from_parts(parts: list[Part]) -> str:
    """The template of these parts as this project writes it, where double brackets have a meaning."""
    return "".join(escape(literal) + ("" if name is None else f"{{{name}}}") for literal, name in parts)


def begins_answer(text: str) -> bool:
    """Whether the text before a column ends in the assistant's turn."""
    roles = [mark.group(mark.lastgroup or 0).lower() for mark in ROLE.finditer(text)]
    return bool(roles) and roles[-1] in ASSISTANT


def derived_values(fields: list[MappedField]) -> list[Value]:
    """Values that follow from the fields of the rows."""
    mapped = {key: value for field in fields for key, value in field.mapping.values.items()}
    files, column = mapped.get("data.files") or [], mapped.get("data.completion_column")
    labels = None
    reason = "free text; list the labels of a classification"
    if column is None:
        reason = "conversations"
    elif any(field.mapping.note for field in fields):
        reason = "the rows are not on this machine; list the labels of a classification"
    elif files and column_names(mapped["data.text_template"])[-1] == column and not any(map(is_remote, files)):
        labels = labels_of(files, column)
        reason = "the answers in the file; null for free text" if labels else reason
    values = [Value("data.labels", labels, reason), Value("train.completion_only_loss", False, "Olive trains on the prompt too")]
    if "data.source_max_len" not in mapped:
        values.append(Value("data.source_max_len", 1024, "Olive's default"))
    return values


def labels_of(paths: list[str], column: str) -> list[str] | None:
    """The labels if the rows are a classification: few answers, each frequent."""
    from stages.prepare.rows import read_files

    answers = Counter(row.text(column).strip() for row in read_files(paths))
    classes = 2 <= len(answers) <= 20 and min(answers.values()) >= 10
    if classes and any("${" in answer for answer in answers):  # OmegaConf would interpolate it
        raise InputError(f"{paths[0]}: a label contains ${{, which params.yaml would interpolate; rename it in the rows")
    return sorted(answers) if classes else None
