"""An Olive configuration as a file: its JSON, and each single field with its place."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunepress.core.errors import InputError

# Levels that one generation of Olive has and the other leaves out.
WRAPPERS = {"config", "params_config", "component_kwargs", "params", "extra_args", "hf_config"}
COMMENTS = ("//", "/*", "#")

Object = dict[str, Any]


@dataclass(frozen=True)
class Leaf:
    """A single value, or a list of them.

    Attributes:
        path: where it stands in the file.
        name: the same within its section, without the levels that are not in all generations.
        value: as JSON has it.
    """

    path: str
    name: str
    value: Any


def read(path: Path) -> Object:
    """The configuration of a file.

    Raises:
        InputError: there is none, or it is no JSON object.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file (CONFIG)")
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text, object_pairs_hook=lambda pairs: without_repeats(path, pairs), parse_constant=no_number)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        rest = text[error.pos :].lstrip(" ,\t")
        said = "JSON has no comments, remove it" if rest.startswith(COMMENTS) else error.msg
        raise InputError(f"{path} line {error.lineno}: not JSON ({said})") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({str(error).partition(';')[0]})") from error
    except RecursionError as error:
        raise InputError(f"{path}: not JSON of an Olive configuration (nested too deep)") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: an Olive configuration is a JSON object, not {type(content).__name__}")
    return content


def without_repeats(path: Path, pairs: list[tuple[str, Any]]) -> Object:
    """An object of the file, whose earlier value of a repeated key Python would drop in silence."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: the key {name!r} stands twice in one object; remove one")
    return dict(pairs)


def no_number(word: str) -> None:
    """Refuses NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(f"{word} is no number of JSON")


def section(tree: Any, path: str) -> Object:
    """An object of the configuration.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(tree, dict):
        raise InputError(f"{path}: wants an object, not {type(tree).__name__}")
    return tree


def members(tree: Any, path: str) -> list[Any]:
    """A list of the configuration; empty where it is null.

    Raises:
        InputError: it is something else.
    """
    if tree is not None and not isinstance(tree, list):
        raise InputError(f"{path}: wants a list, not {type(tree).__name__}")
    return tree or []


def text(tree: Any, path: str) -> str | None:
    """A text of the configuration, or None.

    Raises:
        InputError: it is something else.
    """
    if tree is not None and not isinstance(tree, str):
        raise InputError(f"{path}: wants a text, not {type(tree).__name__}")
    return tree


def leaves(tree: Any, path: str, parts: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Each field below a place of the configuration."""
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from leaves(value, f"{path}.{name}" if path else name, parts if name in WRAPPERS else (*parts, name))
    elif isinstance(tree, list) and any(isinstance(value, dict) for value in tree):
        for number, value in enumerate(tree):
            yield from leaves(value, f"{path}[{number}]", parts)
    else:
        yield Leaf(path, ".".join(parts), tree)


def printable(text: str) -> str:
    """A text of the configuration on one line: what is not printed, such as a line break, is written as Python escapes it."""
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)
