"""dvc.yaml says what the code does: every stage's dependencies and parameters, no more and no less."""

import ast
import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

STAGES = [
    "fetch",
    "identify",
    "collect",
    "prepare",
    "train",
    "merge",
    "build",
    "evaluate",
    "compare",
    "benchmark",
    "judge",
    "report",
    "enforce",
]
EDGE = "stages/lib/edge"
OF_DVC = {"tracked", "remote", "collected"}  # keys that conf/config.yaml derives for dvc.yaml


def stage_of(root: Path, name: str) -> Any:
    return OmegaConf.to_container(OmegaConf.load(root / "dvc.yaml"), resolve=False)["stages"][name]  # type: ignore[call-overload,index]


def imported_by(path: Path, root: Path) -> set[Path]:
    """Modules of stages/ that a module imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    modules = {root.joinpath(*name.split(".")).with_suffix(".py") for name in names if name.startswith("stages")}
    return {module for module in modules if module.exists()}


def needed_by(stage: str, root: Path) -> set[str]:
    """A stage's script and all that it imports, as dvc.yaml would list them."""
    found: set[Path] = set()
    waiting = [root / "stages" / f"{stage}.py"]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += imported_by(module, root)
    names = {module.relative_to(root).as_posix() for module in found}
    return {EDGE if name.startswith(EDGE) else name for name in names} | {"stages/__init__.py"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_its_script_and_the_modules_it_imports(stage: str, root: Path) -> None:
    listed = {dep for dep in stage_of(root, stage)["deps"] if dep.startswith("stages/")} - {"stages/templates"}
    assert listed == needed_by(stage, root)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_environment(stage: str, root: Path) -> None:
    assert "${environment.lock}" in stage_of(root, stage)["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_sections_it_reads(stage: str, root: Path) -> None:
    sections = importlib.import_module(f"stages.{stage}").Sections
    listed = {name.partition(".")[0] for name in stage_of(root, stage).get("params", [])}
    assert listed == {field.name for field in dataclasses.fields(sections)}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_those_keys_of_a_section_that_it_reads(stage: str, root: Path) -> None:
    """Where it names keys and not the whole section, they are those that its code reads."""
    named = {tuple(name.split(".")) for name in stage_of(root, stage).get("params", []) if "." in name}
    code = (root / "stages" / f"{stage}.py").read_text(encoding="utf-8")
    for section in {section for section, _ in named}:
        read = set(re.findall(rf"cfg\.{section}\.(\w+)", code))
        assert {key for name, key in named if name == section} == read


def test_every_key_of_the_schema_is_read_by_a_stage(root: Path) -> None:
    modules = [file for pattern in ("*.py", "lib/*.py", "templates/*.jinja") for file in (root / "stages").glob(pattern)]
    code = "\n".join(path.read_text(encoding="utf-8") for path in modules)
    generic = {"adapter", "train"}  # sections handed on whole: asserted by the field names that peft and transformers know
    for module in sorted((root / "stages/lib/schema").glob("[a-z]*.py")):
        if module.stem in generic:
            continue
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id not in OF_DVC:
                assert f".{node.target.id}" in code or f'"{node.target.id}"' in code, f"{module.stem}.{node.target.id}"
