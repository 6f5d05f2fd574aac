"""How each field of an Olive configuration maps to this project, and the values that result."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from rich.markup import escape
from rich.table import Table

from tools.olive.document import Leaf, printable
from tunepress.core.errors import InputError

JOB = "job."  # prefix of settings of `make azure-submit`, which are not part of an experiment
SEARCH = "a search space; define it in conf/search/ for `make search`"


class Status(Enum):
    mapped = "mapped"  # to a key of this project
    covered = "covered"  # by something that needs no key
    unsupported = "not supported"


@dataclasses.dataclass(frozen=True)
class FieldMapping:
    """What a field becomes.

    Attributes:
        status: in the table.
        text: in the table, after the status.
        values: by key of params.yaml; `/build` is the Hydra group `build`.
        note: what the user has to do, printed after the table.
    """

    status: Status
    text: str
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""


@dataclasses.dataclass(frozen=True)
class MappedField:
    leaf: Leaf
    mapping: FieldMapping


@dataclasses.dataclass(frozen=True)
class Value:
    """A value of the experiment, and the reason for it."""

    key: str
    value: Any
    reason: str


Rule = FieldMapping | Callable[[Any], FieldMapping]


def mapped_to(key: str, value: Any) -> FieldMapping:
    text = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) or value is None else value
    name = f"azure-submit: {key.removeprefix(JOB)}" if key.startswith(JOB) else key.removeprefix("/")
    return FieldMapping(Status.mapped, f"{name}={text}", {key: value})


def covered(text: str, **values: Any) -> FieldMapping:
    """The mapping of a field whose purpose is met without a key of its own."""
    return FieldMapping(Status.covered, text, values)


def unsupported(reason: str) -> FieldMapping:
    return FieldMapping(Status.unsupported, reason)


EMPTY = covered("same as without the field")
EMPTY_VALUES: tuple[Any, ...] = (None, {}, [], "")


def maps_to(key: str) -> Rule:
    """The rule for a field that corresponds to a key, with the same values."""
    return lambda value: mapped_to(key, value)


def only(accepted: Any, text: str, reason: str) -> Rule:
    """The rule for a field with one supported value: `text` describes it, `reason` why others are not supported."""
    return lambda value: covered(text) if value in (None, accepted) else unsupported(reason)


def map_fields(leaves: Iterable[Leaf], rules: Mapping[str, Rule], unknown: str) -> list[MappedField]:
    """Applies the rules to each field.

    Args:
        leaves: the fields.
        rules: by field name.
        unknown: the reason why a field without a rule is not supported.
    """
    return [MappedField(leaf, map_field(leaf, rules, unknown)) for leaf in leaves]


def map_field(leaf: Leaf, rules: Mapping[str, Rule], unknown: str) -> FieldMapping:
    """Applies the rules to one field; fields below one that needs a single value are a search space."""
    levels = leaf.name.split(".")
    names = [".".join(levels[:depth]) for depth in range(len(levels), 0, -1)]
    name = next((name for name in names if name in rules), leaf.name)
    rule = rules.get(name, unsupported(unknown))
    if leaf.value == "DEFAULT_VALUE":
        return EMPTY
    if leaf.value == "SEARCHABLE_VALUES" or (name != leaf.name and not isinstance(rule, FieldMapping)):
        return unsupported(SEARCH)
    mapping = rule if isinstance(rule, FieldMapping) else rule(leaf.value)
    return EMPTY if leaf.value in EMPTY_VALUES and mapping.status is Status.unsupported else mapping


def values_of(fields: Iterable[MappedField]) -> list[Value]:
    """The values that fields set, with the path of the field.

    Raises:
        InputError: a string that OmegaConf would interpolate, for example with an environment variable.
    """
    values = [Value(key, value, field.leaf.path) for field in fields for key, value in field.mapping.values.items()]
    for value in values:
        if "${" in str(value.value) and value.key != "data.chat_template":  # a file of its own
            raise InputError(f"{value.reason}: contains ${{, which params.yaml would interpolate; write it differently")
    return values


SECRET = re.compile("secret|password|token|credential|default_auth_params|sas|key$", re.IGNORECASE)
MAX_WIDTH = 60  # characters of a value in the table


def table(fields: list[MappedField]) -> Table:
    """A table with one line per field, in the order of the sections."""
    table = Table(expand=True)
    for name, ratio in (("in the Olive configuration", 5), ("value", 2), ("", None), ("in this project", 4)):
        table.add_column(name, overflow="fold", ratio=ratio, no_wrap=ratio is None)
    for field in fields:
        cells = (field.leaf.path, display_value(field.leaf), field.mapping.status.value, field.mapping.text)
        table.add_row(
            *(escape(printable(cell)) for cell in cells), style="red" if field.mapping.status is Status.unsupported else None
        )
    return table


def display_value(leaf: Leaf) -> str:
    """The value in the table; secrets are hidden."""
    if isinstance(leaf.value, str) and SECRET.search(leaf.path):
        return "(hidden)"
    text = str(leaf.value)
    return text if len(text) <= MAX_WIDTH else text[: MAX_WIDTH - 3] + "..."


def summary(fields: list[MappedField]) -> str:
    """The number of fields with each status."""
    counts = Counter(field.mapping.status for field in fields)
    return ", ".join(f"{counts[status]} {status.value}" for status in Status)
