"""Imports point down: tools -> stages -> tunepress; no folder has too many modules; a module that one folder uses is in it."""

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.test_requirements import pins

CODE = ("tunepress", "stages", "tools")
LAYERS = {"tunepress": 0, "hydra_plugins": 1, "stages": 2, "tools": 3}
MOST_MODULES = 15

Imports = dict[str, set[str]]


@pytest.fixture(scope="module")
def imports(root: Path) -> Imports:
    """The modules of this project that each module imports, inside functions too."""
    modules = {module_name(path.relative_to(root)): path for layer in LAYERS for path in (root / layer).rglob("*.py")}
    return {name: imported(path) & modules.keys() - {name} for name, path in modules.items()}


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def layer(module: str) -> str:
    return module.partition(".")[0]


def unit(module: str) -> str:
    """The stage, the tool or the package of tunepress that a module belongs to."""
    return ".".join(module.split(".")[:2])


def test_imports_point_down(imports: Imports) -> None:
    upward = [
        (user, module) for user, modules in imports.items() for module in modules if LAYERS[layer(module)] > LAYERS[layer(user)]
    ]
    assert upward == []


def test_no_stage_imports_another_stage_and_no_tool_another_tool(imports: Imports) -> None:
    sideways = [
        (user, module)
        for user, modules in imports.items()
        for module in modules
        if layer(user) == layer(module) in ("stages", "tools") and module.count(".") and unit(user) != unit(module)
    ]
    assert sideways == []


def test_no_folder_has_more_modules_than_fit_on_a_screen(root: Path) -> None:
    folders = Counter(path.parent for code in CODE for path in (root / code).rglob("*.py") if path.name != "__init__.py")
    assert {str(folder.relative_to(root)): count for folder, count in folders.items() if count > MOST_MODULES} == {}


def test_a_module_of_the_library_has_two_users_or_belongs_to_its_folder(imports: Imports) -> None:
    users = defaultdict(set)
    for user, modules in imports.items():
        for module in modules if layer(user) != "hydra_plugins" else ():  # a plugin's parts are in tunepress/config
            users[module].add(unit(user))
    library = [module for module in imports if layer(module) == "tunepress" and module.count(".") > 1]
    misplaced = {module: users[module] for module in library if len(users[module]) == 1 and users[module] != {unit(module)}}
    assert misplaced == {}


@pytest.mark.parametrize(
    ("module", "packages"),
    [
        *((f"stages.{stage}", ("torch",)) for stage in ("identify", "collect", "evaluate", "compare", "benchmark.stage", "gate")),
        *((f"stages.{stage}.stage", ("peft", "bitsandbytes")) for stage in ("fetch", "prepare", "build")),
        ("tunepress.inference.onnx_model", ("torch", "transformers")),
        ("tunepress.inference.torch_model", ("peft", "bitsandbytes")),
    ],
)
def test_a_process_imports_no_package_that_takes_seconds_without_need(module: str, packages: tuple[str, ...], root: Path) -> None:
    code = f"import sys, {module}; print([name for name in {packages} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "module", ["tools.cli.predict", "tools.cli.verify", "tools.serve.server", "tools.serve.workers.model_process"]
)
def test_what_the_serving_image_runs_needs_only_the_packages_of_its_lock(module: str, root: Path) -> None:
    locked = pins(root / "requirements/serve.txt").keys()
    absent = [
        name
        for name, distributions in packages_distributions().items()
        if locked.isdisjoint(re.sub(r"[-_.]+", "-", each).lower() for each in distributions)
    ]
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import {module}"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
