"""The result of one check, and what to do about it."""

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """The state of a check for the recipe; the value is the word in the table."""

    ok = "ok"
    warning = "warning"  # it runs, but more slowly, or something around it does not
    error = "error"  # a stage would raise an error


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        subject: what was checked.
        state: of the check.
        detail: the result, never a secret.
        advice: what to do, in one line.
    """

    subject: str
    state: State
    detail: str
    advice: str


def ok(subject: str, detail: str, advice: str = "nothing to do") -> Finding:
    return Finding(subject, State.ok, detail, advice)


def warning(subject: str, detail: str, advice: str) -> Finding:
    return Finding(subject, State.warning, detail, advice)


def error(subject: str, detail: str, advice: str) -> Finding:
    return Finding(subject, State.error, detail, advice)
