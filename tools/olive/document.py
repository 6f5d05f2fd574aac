"""An Olive configuration: its JSON or YAML, and each field with its path."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tunepress.core.errors import InputError

# Levels that only one generation of Olive has.
WRAPPERS = {"config", "params_config", "component_kwargs", "params", "extra_args", "hf_config"}
COMMENTS = ("//", "/*", "#")
YAML_SUFFIXES = (".yaml", ".yml")

Object = dict[str, Any]


@dataclass(frozen=True)
class Leaf:
    """A single value, or a list of them.

    Attributes:
        path: its path in the file.
        name: its path in its section, without the levels that only one generation has.
        value: as in JSON.
    """

    path: str
    name: str
    value: Any


def read(path: Path) -> Object:
    """Reads a configuration.

    Raises:
        InputError: the file does not exist, or is not a JSON object or YAML mapping.
    """
    if not path.is_file():
        raise InputError(f"{path}: not found (CONFIG)")
    kind, parse = ("YAML", parse_yaml) if path.suffix.lower() in YAML_SUFFIXES else ("JSON", parse_json)
    try:
        content = parse(path, path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise InputError(f"{path}: not {kind} of an Olive configuration (nested too deep)") from error
    if not isinstance(content, dict):
        form = "YAML mapping" if kind == "YAML" else "JSON object"
        raise InputError(f"{path}: an Olive configuration must be a {form}, not {type(content).__name__}")
    return content


def parse_json(path: Path, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: without_repeats(path, pairs), parse_constant=reject_constant)
    except json.JSONDecodeError as error:
        rest = text[error.pos :].lstrip(" ,\t")
        reason = "JSON has no comments; remove it" if rest.startswith(COMMENTS) else error.msg
        raise InputError(f"{path} line {error.lineno}: not JSON ({reason})") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({str(error).partition(';')[0]})") from error


def parse_yaml(path: Path, text: str) -> Any:
    """The content of a YAML file, with the types that the same configuration has in JSON."""
    try:
        content = yaml.load(text, Loader=YamlLoader)  # noqa: S506, a SafeLoader
        json.dumps(content, allow_nan=False)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: not YAML ({error.problem})") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not YAML of an Olive configuration ({str(error).partition(chr(10))[0]})") from error
    return content


class YamlLoader(yaml.SafeLoader):
    """PyYAML's loader, which Olive uses, except that 1e-4 is a number, a date is text, and a key may not be there twice."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = set()
        for key, _ in node.value:
            if key.tag not in (f"{YAML_TAG}str", f"{YAML_TAG}merge"):
                raise refused(key, "a key must be text; quote it")
            if key.value in names:
                raise refused(key, f"the key {key.value!r} is twice in one mapping; remove one")
            names.add(key.value)
        return node


def refused(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


YAML_TAG = "tag:yaml.org,2002:"
YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{YAML_TAG}timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
YamlLoader.add_implicit_resolver(f"{YAML_TAG}float", re.compile(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def without_repeats(path: Path, pairs: list[tuple[str, Any]]) -> Object:
    """Creates an object; Python would silently drop the earlier values of a repeated key."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: the key {name!r} is twice in one object; remove one")
    return dict(pairs)


def reject_constant(word: str) -> None:
    """Rejects NaN and Infinity, which Python accepts but JSON does not."""
    raise ValueError(f"{word} is not a number in JSON")


def section(tree: Any, path: str) -> Object:
    """Checks that a value is an object.

    Raises:
        InputError: it is not.
    """
    if not isinstance(tree, dict):
        raise InputError(f"{path}: must be an object, not {type(tree).__name__}")
    return tree


def members(tree: Any, path: str) -> list[Any]:
    """Checks that a value is a list; null becomes an empty one.

    Raises:
        InputError: it is not.
    """
    if tree is not None and not isinstance(tree, list):
        raise InputError(f"{path}: must be a list, not {type(tree).__name__}")
    return tree or []


def string(tree: Any, path: str) -> str | None:
    """Checks that a value is a string or null.

    Raises:
        InputError: it is not.
    """
    if tree is not None and not isinstance(tree, str):
        raise InputError(f"{path}: must be a string, not {type(tree).__name__}")
    return tree


def leaves(tree: Any, path: str, parts: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Yields each field below a path."""
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from leaves(value, f"{path}.{name}" if path else name, parts if name in WRAPPERS else (*parts, name))
    elif isinstance(tree, list) and any(isinstance(value, dict) for value in tree):
        for number, value in enumerate(tree):
            yield from leaves(value, f"{path}[{number}]", parts)
    else:
        yield Leaf(path, ".".join(parts), tree)


def printable(text: str) -> str:
    """Escapes characters that are not printable, such as line breaks, so that a text stays on one line."""
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in text)
