"""What becomes of a field of an Olive configuration, and the values that come of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tools.olive.document import Leaf
from tunepress.core.errors import InputError

JOB = "job."  # before the settings of `make azure-submit`, which are no part of an experiment
SEARCH = "a search space; `make search` takes its own from conf/search/"


class Kind(Enum):
    """What can become of a field."""

    taken = "taken over"
    otherwise = "by other means"
    refused = "not supported"


@dataclass(frozen=True)
class Fate:
    """What became of a field, in words, and the keys of params.yaml that it sets; `/build` is the Hydra group `build`."""

    kind: Kind
    said: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """A field and its fate."""

    leaf: Leaf
    fate: Fate


@dataclass(frozen=True)
class Value:
    """A value of the experiment, and why it is there."""

    key: str
    value: Any
    why: str


Rule = Fate | Callable[[Any], Fate]


def taken(key: str, value: Any) -> Fate:
    """The field is a key here."""
    shown = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) or value is None else value
    named = f"azure-submit: {key.removeprefix(JOB)}" if key.startswith(JOB) else key.removeprefix("/")
    return Fate(Kind.taken, f"{named}={shown}", {key: value})


def otherwise(said: str, **values: Any) -> Fate:
    """What the field is for comes about in another way."""
    return Fate(Kind.otherwise, said, values)


def refused(why: str) -> Fate:
    """Nothing here does what the field asks for."""
    return Fate(Kind.refused, why)


EMPTY = otherwise("as if it were not there")


def to(key: str) -> Rule:
    """The rule of a field that is a key here, with the same values."""
    return lambda value: taken(key, value)


def only(accepted: Any, said: str, why: str) -> Rule:
    """The rule of a field of which one value, or none, is what happens here."""
    return lambda value: otherwise(said) if value in (None, accepted) else refused(why)


def ruled(leaves: Iterable[Leaf], rules: Mapping[str, Rule], unknown: str) -> list[Line]:
    """Each field with what the rules say of its name.

    Args:
        leaves: the fields.
        rules: by the fields' names.
        unknown: why a field without a rule is not supported.
    """
    return [Line(leaf, fate_of(leaf, rules, unknown)) for leaf in leaves]


def fate_of(leaf: Leaf, rules: Mapping[str, Rule], unknown: str) -> Fate:
    """What the rules say of one field; what lies below a field that wants a single value is a search space."""
    levels = leaf.name.split(".")
    names = [".".join(levels[:depth]) for depth in range(len(levels), 0, -1)]
    name = next((name for name in names if name in rules), leaf.name)
    rule = rules.get(name, refused(unknown))
    if leaf.value == "DEFAULT_VALUE":
        return EMPTY
    if leaf.value == "SEARCHABLE_VALUES" or (name != leaf.name and not isinstance(rule, Fate)):
        return refused(SEARCH)
    fate = rule if isinstance(rule, Fate) else rule(leaf.value)
    return EMPTY if leaf.value is None and fate.kind is Kind.refused else fate


def values_of(lines: Iterable[Line]) -> list[Value]:
    """The values that come of fields, with the field's place.

    Raises:
        InputError: a text that OmegaConf would replace by what it refers to, such as a variable of the environment.
    """
    values = [Value(key, value, line.leaf.path) for line in lines for key, value in line.fate.values.items()]
    for value in values:
        if "${" in str(value.value):
            raise InputError(f"{value.why}: holds ${{, which params.yaml reads as a reference; write it in another way")
    return values
