"""The experiment: conf/experiment/NAME.yaml, with the place that each value came from behind it."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from hydra_plugins.tunepress import Tunepress
from tools.cli.params import compose
from tools.olive.document import printable
from tools.olive.fate import JOB, Value
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output
from tunepress.core.params import CONF

IMPORTED = "by `make import-olive`"
PLAIN = re.compile(r"[A-Za-z_/][\w./+-]*(?: [\w./+-]+)*")  # a text that YAML reads as itself without quotes
WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf")
Tree = dict[str, Any]


def path_of(name: str) -> Path:
    """Where the experiment of this name lies.

    Raises:
        InputError: it cannot be a name, or one is there that was not imported.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise InputError(f"NAME: {name!r} is not of letters, digits, _ and - alone, a letter first")
    if name.lower() in WORDS:
        raise InputError(f"NAME: {name!r} is a word of YAML's; choose another")
    path = CONF / "experiment" / f"{name}.yaml"
    if path.exists() and IMPORTED not in path.read_text(encoding="utf-8"):
        raise InputError(f"{path}: is there and was not imported; choose another NAME")
    return path


def command(name: str, target: str) -> str:
    """What runs the experiment."""
    return f"dvc exp run -S +experiment={name}{f' {target}' if target else ''}"


def job_command(name: str, values: list[Value]) -> str:
    """What runs the experiment on Azure ML's computers."""
    settings = [f"{one.key.removeprefix(JOB)}={plain(one.value)}" for one in last(values) if one.key.startswith(JOB)]
    quoted = re.sub(r'(["$`\\])', r"\\\1", shlex.join(settings))
    return f'make azure-submit EXPERIMENT={name} ARGS="{quoted}"'


def text_of(name: str, source: str, target: str, values: list[Value]) -> str:
    """The experiment's YAML.

    Args:
        name: of the experiment.
        source: the file it comes from.
        target: the stage at which it stops, empty for the whole graph.
        values: of which the last of several for one key counts.
    """
    lines = ["# @package _global_", comment(command(name, target))]
    lines += [comment(f"From {source}, {IMPORTED}. Behind a value: where it was.")]
    lines += [comment(job_command(name, values))] * any(value.key.startswith(JOB) for value in values)
    values = last(value for value in values if not value.key.startswith(JOB))
    for value in values:
        check(value)
    groups = [value for value in values if value.key.startswith("/")]
    lines += ["defaults:"] * bool(groups)
    lines += [f"  - override {value.key}: {scalar(value.value)} {comment(value.why)}" for value in groups]
    tree = nested([value for value in values if not value.key.startswith("/")])
    order = [field.name for field in fields(Tunepress)]
    body = written({section: tree[section] for section in sorted(tree, key=order.index)}, 0)
    return "\n".join([*lines, *([""] if groups and body else []), *body]) + "\n"


def comment(text: str) -> str:
    """A comment of one line, whatever the text holds."""
    return f"# {printable(text)}"


def check(value: Value) -> None:
    """Raises InputError where an imported experiment would set the function that evaluate calls."""
    if value.key.split(".")[:2] == ["evaluate", "metric"]:
        raise InputError(f"{value.why}: evaluate.metric names a Python function to call; an imported experiment sets none")


def last(values: Iterable[Value]) -> list[Value]:
    """The last value for each key."""
    return list({value.key: value for value in values}.values())


def nested(values: list[Value]) -> Tree:
    """Values by their keys, level by level."""
    tree: Tree = {}
    for value in values:
        *levels, name = value.key.split(".")
        place = tree
        for level in levels:
            place = place.setdefault(level, {})
        place[name] = value
    return tree


def written(tree: Tree, depth: int) -> list[str]:
    """The lines of a mapping."""
    lines = []
    for name, part in tree.items():
        if isinstance(part, dict):
            lines += [f"{'  ' * depth}{scalar(name)}:", *written(part, depth + 1)]
        else:
            lines.append(f"{'  ' * depth}{scalar(name)}: {scalar(part.value)} {comment(part.why)}")
    return lines


def scalar(value: Any) -> str:
    """A value as YAML writes it."""
    if isinstance(value, list):
        return f"[{', '.join(scalar(one) for one in value)}]"
    if isinstance(value, float):
        mantissa, _, exponent = repr(value).partition("e")  # YAML reads 1e-05 as a text
        return f"{mantissa}{'' if '.' in mantissa else '.0'}e{exponent}" if exponent else mantissa
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    dumped = yaml.safe_dump(
        value,
        default_style='"' if isinstance(value, str) else None,
        default_flow_style=True,
        allow_unicode=True,
        width=float("inf"),
    )
    return str(dumped).removesuffix("...\n").rstrip("\n")


def plain(value: Any) -> str:
    """A value as a shell has it."""
    return value if isinstance(value, str) else scalar(value)


def write(path: Path, text: str, values: list[Value], source: str) -> None:
    """Writes the experiment, if it composes and passes the schema.

    Raises:
        InputError: it does not, with the field that the value came from; what was there before stays.
    """
    earlier = path.read_text(encoding="utf-8") if path.exists() else None
    try:
        with atomic_output(path) as partial:
            partial.write_text(text, encoding="utf-8")
        compose([f"+experiment={path.stem}"])
    except BaseException as error:
        if earlier is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(earlier, encoding="utf-8")
        if isinstance(error, InputError):
            raise InputError(f"{source}: {blamed(values, str(error))}{error}") from error
        raise


def blamed(values: list[Value], said: str) -> str:
    """The place of the value that an error names, with a colon; empty if it names none."""
    keys = {value.key: value for value in values if re.search(rf"\b{re.escape(value.key)}\b", said)}
    return f"{keys[max(keys, key=len)].why}: " if keys else ""
