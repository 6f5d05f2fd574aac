"""What the doctor found out about one thing, and what to do about it."""

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How it stands with the chosen recipe; the value is the word in the table."""

    ok = "ok"
    warning = "warning"  # it runs, but slower, or not everything around it does
    error = "error"  # a stage would refuse or fail


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        subject: what was looked at.
        state: how it stands.
        found: what there is, never a secret.
        advice: what to do, in one line.
    """

    subject: str
    state: State
    found: str
    advice: str


def ok(subject: str, found: str, advice: str = "nothing to do") -> Finding:
    """All is well."""
    return Finding(subject, State.ok, found, advice)


def warning(subject: str, found: str, advice: str) -> Finding:
    """The recipe runs all the same."""
    return Finding(subject, State.warning, found, advice)


def error(subject: str, found: str, advice: str) -> Finding:
    """The recipe cannot run."""
    return Finding(subject, State.error, found, advice)
