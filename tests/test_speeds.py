"""`make test` covers every module: a fast test file mirrors or names it, or what such a file covers imports it.

The latter counts in the module's own package, and for what every command imports.
"""

import ast
from pathlib import Path

from tests.conftest import ROOT, SLOW_FIXTURES

PACKAGES = ("hydra_plugins", "stages", "tools", "tunepress")
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "tests").rglob("*.py"))}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__init__.py"
}


def is_slow(node: ast.expr) -> bool:
    return "pytest.mark.slow" in ast.unparse(node)


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {argument.arg for argument in function.args.args}


def slow_fixtures(path: Path) -> set[str]:
    """Azurite's, a browser's and a benchmark's fixtures, and those of a file and its folder that use them."""
    trees = [TREES[path], *(tree for other, tree in TREES.items() if other == path.with_name("conftest.py"))]
    fixtures = [function for tree in trees for function in functions(tree) if not function.name.startswith("test_")]
    slow = set(SLOW_FIXTURES)
    while added := {fixture.name for fixture in fixtures if slow & arguments(fixture)} - slow:
        slow |= added
    return slow


def is_fast(path: Path) -> bool:
    """Whether `make test` runs a test of this file."""
    tree, slow = TREES[path], slow_fixtures(path)
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark" and is_slow(node.value):
            return False
    tests = [function for function in functions(tree) if function.name.startswith("test_")]
    return any(not slow & arguments(test) and not any(map(is_slow, test.decorator_list)) for test in tests)


def names(tree: ast.Module) -> set[str]:
    """The modules of this project that a file imports, or runs by `python -m`; a package's name is that of its __main__ too."""
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            imported |= {node.value, f"{node.value}.__main__"}
    return imported & MODULES.keys()


def test_every_module_has_a_fast_test() -> None:
    fast = {path: tree for path, tree in TREES.items() if path.name.startswith("test_") and is_fast(path)}
    covered = set().union(*map(names, fast.values()))
    for name, path in MODULES.items():
        mirror = ROOT / "tests" / path.relative_to(ROOT)
        if mirror.with_name(f"test_{mirror.name}") in fast:
            covered.add(name)
    if ROOT / "tests/test_hydra_plugin.py" in fast:
        covered.add("hydra_plugins.tunepress")
    waiting = list(covered)
    while waiting:
        name = waiting.pop()
        imported = names(ast.parse(MODULES[name].read_text(encoding="utf-8")))
        package = name.split(".")[:2]
        is_command = name.endswith(".__main__") or name.startswith("hydra_plugins")
        added = {other for other in imported if is_command or other.split(".")[:2] == package} - covered
        covered |= added
        waiting += added
    uncovered = MODULES.keys() - covered - {name for name in MODULES if name.endswith(".__main__")}
    assert sorted(uncovered) == []
