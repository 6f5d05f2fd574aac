"""docs/parameters.md: every key of params.yaml with its default, its type and the comment of conf/."""

import inspect
import json
import re
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from tools.docs.markdown import table
from tunepress.config.params import Params
from tunepress.core.params import COMPOSED, CONF, read_yaml
from tunepress.models import architectures

INTERNAL = {"tracked", "remote", "collected", "dvc"}  # keys that DVC needs and nobody sets
LINE = re.compile(
    r"""^(?P<indent>\s*)(?P<key>\w+):(?:\s+(?:"(?:\\.|[^"])*"|'[^']*'|[^#"'][^#]*?)?)?(?:\s+# ?(?P<comment>.*))?$"""
)


def sections() -> str:
    """A table for each group of conf/, with the choices that the group has."""
    values = read_yaml(COMPOSED)
    chosen = {
        group: name
        for entry in read_yaml(CONF / "config.yaml")["defaults"]
        if isinstance(entry, dict)
        for group, name in entry.items()
    }
    parts = []
    for group, kind in get_type_hints(Params).items():
        if group in INTERNAL:
            continue
        if not (isinstance(kind, type) and is_dataclass(kind)):
            comment = comments(CONF / "config.yaml").get(group, "")
            parts.append(f"## {group}\n\n{table(HEAD, [[f'`{group}`', shown(values[group]), type_name(kind), comment]])}")
            continue
        file = CONF / group / f"{chosen[group]}.yaml"
        rows = keys(kind, f"{group}.", values[group], {f"{group}.{key}": text for key, text in comments(file).items()})
        parts.append(f"## {group}\n\n{choices(group, chosen[group])}{table(HEAD, rows)}")
    return "\n\n".join(parts)


HEAD = ("key", "default", "type", "meaning")


def recipes() -> str:
    """The experiments of conf/experiment."""
    return table(
        ["`-S +experiment=`", ""], [[f"`{path.stem}`", heading(path)] for path in sorted((CONF / "experiment").glob("*.yaml"))]
    )


def choices(group: str, default: str) -> str:
    """A line for each file of a group, if it has more than one."""
    files = sorted((CONF / group).glob("*.yaml"))
    if len(files) < 2:
        return ""
    return (
        "".join(f"- `{group}={path.stem}`{' (the default)' if path.stem == default else ''}: {heading(path)}\n" for path in files)
        + "\n"
    )


def heading(path: Path) -> str:
    """The comment at the top of a file of conf/."""
    lines = path.read_text(encoding="utf-8").splitlines()
    top = [
        line[1:].strip() for line in lines[: next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))]
    ]
    return " ".join(line for line in top if not line.startswith(("@", "dvc exp run")))


def keys(kind: type, prefix: str, values: dict[str, Any], described: dict[str, str]) -> list[list[str]]:
    """A row for each field of a dataclass; the fields of a nested one follow with dotted names."""
    types, source = get_type_hints(kind), source_comments(kind)
    rows: list[list[str]] = []
    for field in fields(kind):
        name, key = field.name, f"{prefix}{field.name}"
        nested = next((argument for argument in (types[name], *get_args(types[name])) if is_dataclass(argument)), None)
        value = values.get(name)
        if name in INTERNAL:
            continue
        if isinstance(nested, type):
            rows += keys(nested, f"{key}.", value or {}, described)
        else:
            rows.append([f"`{key}`", shown(value), type_name(types[name]), described.get(key) or source.get(name, "")])
    return rows


def shown(value: Any) -> str:
    """A value as `-S key=value` takes it."""
    return f"`{value if isinstance(value, str) and value.isprintable() else json.dumps(value, ensure_ascii=False)}`"


def type_name(kind: Any) -> str:
    """A type in the words of the configuration: the values of an enum, `or null` for an optional."""
    arguments = get_args(kind)
    if type(None) in arguments:
        return " or ".join(type_name(argument) for argument in arguments if argument is not type(None)) + " or null"
    if isinstance(kind, type) and issubclass(kind, Enum) and not arguments:
        return ", ".join(f"`{choice.name}`" for choice in kind)
    if arguments:
        return str(kind).replace("typing.", "")
    return {"str": "text", "int": "integer", "float": "number", "bool": "`true`, `false`"}.get(kind.__name__, kind.__name__)


def comments(path: Path) -> dict[str, str]:
    """The comment of each key in a YAML file, by dotted key."""
    described: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := LINE.match(line):
            indent = len(match["indent"])
            parents = [parent for parent in parents if parent[0] < indent] + [(indent, match["key"])]
            if match["comment"]:
                described[".".join(key for _, key in parents)] = match["comment"].strip()
    return described


def source_comments(kind: type) -> dict[str, str]:
    """The comment of each field of a dataclass."""
    pattern = re.compile(r"^    (\w+): .*?  # (.*)$", re.MULTILINE)
    return dict(pattern.findall(inspect.getsource(kind)))


def architecture_table() -> str:
    """The architectures that the installed builder lists, with the types of rope or the reason why not."""
    rows = [[f"`{name}`", "yes", f"rope: {', '.join(ropes)}"] for name, ropes in sorted(architectures.SUPPORTED.items())]
    rows += [[f"`{name}`", "no", reason] for name, reason in sorted(architectures.UNSUPPORTED.items())]
    return table(["architecture", "supported", ""], rows)
