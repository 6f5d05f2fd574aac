"""Writes tunepress/config/builder_options.json: the targets and extra options of the installed builder of onnxruntime-genai.

    python -m tools.cli.builder_options

Run it after an upgrade of onnxruntime-genai; until then a test fails. The builder lists what it offers only in the help text
of its command line. That is parsed and not imported: an import loads torch.
"""

import ast
import re
import textwrap
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunepress.config.builder_options import FILE, LISTED_AS
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output, write_json

COMBINATIONS = "Valid precision + execution provider combinations are: "


def main() -> None:
    """The command line."""
    with atomic_output(FILE) as partial:
        write_json(partial, installed())
    print(f"written to {FILE}")


def installed() -> dict[str, Any]:
    """What the installed builder offers."""
    module = source()
    (described,) = strings(argument(module, "--extra_options")["help"])
    options = dict(re.findall(r"^ {4}(\w+) = (.*)$", textwrap.dedent(described), flags=re.MULTILINE))
    renamed = {name: re.match(r"\[DEPRECATED\] Use '(\w+)=", text) for name, text in options.items()}
    return {
        "written_by": "python -m tools.cli.builder_options",
        "builder": f"onnxruntime-genai {metadata.version('onnxruntime-genai')}",
        "targets": targets(module),
        "block_sizes": [int(size) for size in options["block_size"].partition(":")[0].split("/")],
        "deprecated": {name: match[1] for name, match in renamed.items() if match},
        "options": options,
    }


def source() -> ast.Module:
    """The builder's main module."""
    package = find_spec("onnxruntime_genai")
    if package is None or package.origin is None:
        raise InputError("onnxruntime-genai is not installed here; run `make setup`")
    return ast.parse(Path(package.origin).with_name("models").joinpath("builder.py").read_text(encoding="utf-8"))


def targets(module: ast.Module) -> dict[str, list[str]]:
    """The precisions of each execution provider, as its command line calls them."""
    listed = next(text for text in strings(get_args(module)) if text.startswith(COMBINATIONS)).removeprefix(COMBINATIONS)
    names = {name.lower(): name for name in strings(argument(module, "--execution_provider")["choices"])} | LISTED_AS
    precisions: dict[str, list[str]] = {}
    for pair in listed.lower().split(","):
        precision, provider = pair.split()
        precisions.setdefault(names[provider], []).append(precision)
    return precisions


def get_args(module: ast.Module) -> ast.FunctionDef:
    """The function that declares the command line."""
    return next(node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "get_args")


def argument(module: ast.Module, flag: str) -> dict[str, ast.expr]:
    """The keywords with which a flag is declared."""
    calls = [node for node in ast.walk(get_args(module)) if isinstance(node, ast.Call)]
    (declared,) = (call for call in calls if flag in [node.value for node in call.args if isinstance(node, ast.Constant)])
    return {keyword.arg: keyword.value for keyword in declared.keywords if keyword.arg}


def strings(tree: ast.AST) -> list[str]:
    """All texts in a piece of code."""
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


if __name__ == "__main__":
    main()
