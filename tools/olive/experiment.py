"""The experiment, conf/experiment/NAME.yaml, with the origin of each value as a comment, and NAME.jinja, its chat template."""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tools.olive.document import printable
from tools.olive.mapping import JOB, Value
from tunepress.config.params import Params
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output
from tunepress.core.params import CONF, compose_typed

CHAT_TEMPLATE = "data.chat_template"
IMPORTED = "by `make import-olive`"
PLAIN = re.compile(r"[A-Za-z_/][\w./+-]*(?: [\w./+-]+)*")  # a string that YAML reads without quotes
YAML_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf")
Tree = dict[str, Any]


def path_of(name: str) -> Path:
    """Returns the path of an experiment.

    Raises:
        InputError: the name is invalid, or an experiment of this name was not imported.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise InputError(f"NAME: must consist of letters, digits, _ and -, and start with a letter, got {name!r}")
    if name.lower() in YAML_WORDS:
        raise InputError(f"NAME: {name!r} is a keyword of YAML; choose another name")
    path = CONF / "experiment" / f"{name}.yaml"
    if path.exists() and IMPORTED not in path.read_text(encoding="utf-8"):
        raise InputError(f"{path}: exists and was not imported; choose another NAME")
    return path


def command(name: str, target: str) -> str:
    return f"dvc exp run -S +experiment={name}{f' {target}' if target else ''}"


def job_command(name: str, values: list[Value]) -> str:
    """The command that runs the experiment on Azure ML."""
    settings = [f"{value.key.removeprefix(JOB)}={plain(value.value)}" for value in last(values) if value.key.startswith(JOB)]
    quoted = re.sub(r'(["$`\\])', r"\\\1", shlex.join(settings))
    return f'make azure-submit EXPERIMENT={name} ARGS="{quoted}"'


def render(name: str, source: str, target: str, values: list[Value]) -> str:
    """Returns the experiment's YAML.

    Args:
        name: of the experiment.
        source: name of the configuration.
        target: the last stage, empty for the whole graph.
        values: the last of several for one key counts.
    """
    lines = ["# @package _global_", comment(command(name, target))]
    lines += [comment(f"From {source}, {IMPORTED}. The comments name the field of each value.")]
    lines += [comment(job_command(name, values))] * any(value.key.startswith(JOB) for value in values)
    values = last(value for value in values if not value.key.startswith(JOB))
    for value in values:
        refuse_function(value)
    groups = [value for value in values if value.key.startswith("/")]
    lines += ["defaults:"] * bool(groups)
    lines += [f"  - override {value.key}: {scalar(value.value)} {comment(value.reason)}" for value in groups]
    tree = nested([value for value in values if not value.key.startswith("/")])
    order = [field.name for field in fields(Params)]
    body = yaml_lines({section: tree[section] for section in sorted(tree, key=order.index)}, 0)
    return "\n".join([*lines, *([""] if groups and body else []), *body]) + "\n"


def comment(text: str) -> str:
    """A comment of one line, whatever the text contains."""
    return f"# {printable(text)}"


def refuse_function(value: Value) -> None:
    """Raises InputError if an imported experiment would set the function that evaluate calls."""
    if value.key.split(".")[:2] == ["evaluate", "metric"]:
        raise InputError(
            f"{value.reason}: evaluate.metric names a Python function to call, which an imported experiment must not set"
        )


def last(values: Iterable[Value]) -> list[Value]:
    """The last value of each key."""
    return list({value.key: value for value in values}.values())


def nested(values: list[Value]) -> Tree:
    """The values as nested mappings."""
    tree: Tree = {}
    for value in values:
        *levels, name = value.key.split(".")
        branch = tree
        for level in levels:
            branch = branch.setdefault(level, {})
        branch[name] = value
    return tree


def yaml_lines(tree: Tree, depth: int) -> list[str]:
    lines = []
    for name, part in tree.items():
        if isinstance(part, dict):
            lines += [f"{'  ' * depth}{scalar(name)}:", *yaml_lines(part, depth + 1)]
        else:
            lines.append(f"{'  ' * depth}{scalar(name)}: {scalar(part.value)} {comment(part.reason)}")
    return lines


def scalar(value: Any) -> str:
    """A value as YAML."""
    if isinstance(value, list):
        return f"[{', '.join(scalar(item) for item in value)}]"
    if isinstance(value, float):
        mantissa, _, exponent = repr(value).partition("e")  # YAML reads 1e-05 as a string
        return f"{mantissa}{'' if '.' in mantissa else '.0'}e{exponent}" if exponent else mantissa
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in YAML_WORDS:
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
    """A value for a shell."""
    return value if isinstance(value, str) else scalar(value)


def with_chat_template(path: Path, values: list[Value]) -> tuple[list[Value], dict[Path, str]]:
    """The values with a chat template replaced by the path of its file, and the text of that file by its path."""
    file = path.with_suffix(".jinja")
    templates = [value.value for value in values if value.key == CHAT_TEMPLATE]
    values = [replace(value, value=str(file)) if value.key == CHAT_TEMPLATE else value for value in values]
    return values, {file: templates[-1]} if templates else {}


def write(path: Path, texts: Mapping[Path, str], values: list[Value], source: str) -> None:
    """Writes the files of an experiment if it composes and matches the schema.

    Args:
        path: of the experiment.
        texts: of all files, by their path.
        values: of the experiment.
        source: name of the configuration.

    Raises:
        InputError: it does not, with the field that the value came from; earlier files are kept.
    """
    previous = {file: file.read_text(encoding="utf-8") if file.exists() else None for file in texts}
    try:
        for file, text in texts.items():
            with atomic_output(file) as partial:
                partial.write_text(text, encoding="utf-8")
        compose_typed(Params, [f"+experiment={path.stem}"])
    except BaseException as error:
        for file, text_before in previous.items():
            if text_before is None:
                file.unlink(missing_ok=True)
            else:
                file.write_text(text_before, encoding="utf-8")
        if isinstance(error, InputError):
            raise InputError(f"{source}: {origin_of_error(values, str(error))}{error}") from error
        raise


def origin_of_error(values: list[Value], message: str) -> str:
    """The field of the value that an error names, with a colon; empty if it names none."""
    keys = {value.key: value for value in values if re.search(rf"\b{re.escape(value.key)}\b", message)}
    return f"{keys[max(keys, key=len)].reason}: " if keys else ""
