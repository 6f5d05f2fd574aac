"""dvc.yaml says what the code does: every stage's dependencies and parameters, no more and no less."""

import ast
import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx  # type: ignore[import-untyped]
import pytest
from dvc.dependency import ParamsDependency
from dvc.repo import Repo
from dvc.repo.index import Index

from tunepress.core.params import read_yaml

DVC_YAML = read_yaml(Path(__file__).parents[1] / "dvc.yaml")
STAGES = list(DVC_YAML["stages"])
EMPTY = {  # module: what it has besides its docstring
    "stages/__init__.py": ["import tunepress.core"],
    "tunepress/__init__.py": ["import tunepress.core"],
    "tunepress/config/__init__.py": [],
}
PACKAGES = ("stages", "tunepress")


def code_of(stage: str, root: Path) -> Any:
    """The module that defines a stage's `Config`."""
    return importlib.import_module(f"stages.{stage}.stage" if (root / "stages" / stage).is_dir() else f"stages.{stage}")


def imported_by(path: Path, root: Path) -> set[Path]:
    """This project's modules that a module imports, inside functions too, and the packages around them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    places = [root.joinpath(*name.split(".")) for name in names if name.partition(".")[0] in PACKAGES]
    folders = {folder for place in places for folder in (place, *place.parents) if folder.is_relative_to(root) and folder != root}
    modules = {place.with_suffix(".py") for place in places} | {folder / "__init__.py" for folder in folders}
    return {module for module in modules if module.exists()}


def modules_of(stage: str, root: Path) -> set[str]:
    """The modules that run when a stage runs, except those that only import another or have only a docstring."""
    start = root / "stages" / stage / "__main__.py"
    waiting, seen = [start if start.exists() else root / "stages" / f"{stage}.py"], set[Path]()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += imported_by(module, root)
    return {module.relative_to(root).as_posix() for module in seen} - set(EMPTY)


def code_dependencies(stage: str, root: Path) -> set[str]:
    """The dependencies of a stage on this project's code."""
    return {dep for dep in DVC_YAML["stages"][stage]["deps"] if dep.partition("/")[0] in PACKAGES}


def covers(dependency: str, module: str) -> bool:
    return module == dependency or module.startswith(f"{dependency}/")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_that_it_imports(stage: str, root: Path) -> None:
    listed = code_dependencies(stage, root)
    assert [module for module in modules_of(stage, root) if not any(covers(dep, module) for dep in listed)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_no_code_that_it_does_not_import(stage: str, root: Path) -> None:
    listed, modules = code_dependencies(stage, root), modules_of(stage, root)
    assert [dep for dep in listed if not any(covers(dep, module) for module in modules)] == []
    assert [dep for dep in listed if any(covers(other, dep) for other in listed - {dep})] == []


def test_it_can_be_read_aloud(root: Path) -> None:
    assert sum(len(code_dependencies(stage, root)) for stage in STAGES) <= 73
    assert len((root / "dvc.yaml").read_text(encoding="utf-8").splitlines()) <= 330


def test_only_what_experiments_are_compared_by_is_a_metric() -> None:
    assert [stage.get("metrics") for stage in DVC_YAML["stages"].values() if "metrics" in stage] == [
        [{"metrics/summary.json": {"cache": False}}, {"metrics/speed.json": {"cache": False}}]
    ]


# what reruns, as DVC knows it


@pytest.fixture(scope="module")
def index(root: Path) -> Iterator[Index]:
    with Repo(str(root)) as repo:
        yield repo.index


def reruns(index: Index, path: str) -> set[str]:
    """The stages that can run again after a change of a file: those that depend on it, and all that come after them."""
    changed = Path(index.repo.root_dir) / path
    first = [stage for stage in index.stages if any(changed.is_relative_to(dep.fs_path) for dep in stage.deps)]
    graph = index.graph  # an edge leads from a stage to one that it needs
    return {stage.addressing for start in first for stage in {start, *networkx.ancestors(graph, start)}}


AFTER_EVALUATE = {"compare", "report", "gate"}
EVALUATE = {f"evaluate@{candidate}" for candidate in ("base", "merged", "onnx")}


@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("stages/report/tables.py", {"report", "gate"}),
        ("stages/report/templates/report.css", {"report", "gate"}),
        ("stages/gate.py", {"gate"}),
        ("stages/benchmark/speed.py", {"benchmark@merged", "benchmark@onnx", "report", "gate"}),
        ("stages/evaluate/stage.py", EVALUATE | AFTER_EVALUATE),
        ("tunepress/config/evaluate.py", EVALUATE | AFTER_EVALUATE | {"baselines", "build", "benchmark@onnx"}),
    ],
)
def test_an_edit_retrains_nothing(path: str, stages: set[str], index: Index) -> None:
    assert reruns(index, path) == stages


def test_the_base_model_is_evaluated_once_for_all_experiments(index: Index) -> None:
    (stage,) = [stage for stage in index.stages if stage.addressing == "evaluate@base"]
    needed = {before.addressing for before in networkx.descendants(index.graph, stage)}
    assert needed == {"fetch", "prepare"}
    assert {name.partition(".")[0] for dep in stage.deps if isinstance(dep, ParamsDependency) for name in dep.params} == {
        "evaluate"
    }


@pytest.mark.parametrize(("module", "imported"), EMPTY.items())
def test_a_package_that_no_stage_depends_on_only_imports_the_float_kernels(module: str, imported: list[str], root: Path) -> None:
    docstring, *rest = ast.parse((root / module).read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    assert [ast.unparse(line) for line in rest] == imported


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_environment(stage: str, root: Path) -> None:
    assert "${environment.lock}" in DVC_YAML["stages"][stage]["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_sections_it_reads(stage: str, root: Path) -> None:
    sections = code_of(stage, root).Config
    listed = {name.partition(".")[0] for name in DVC_YAML["stages"][stage].get("params", [])}
    assert listed == {field.name for field in dataclasses.fields(sections)}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_those_keys_of_a_section_that_it_reads(stage: str, root: Path) -> None:
    """Where it names keys and not the whole section, they are those that its code reads."""
    named = {tuple(name.split(".")) for name in DVC_YAML["stages"][stage].get("params", []) if "." in name}
    code = Path(code_of(stage, root).__file__).read_text(encoding="utf-8")
    for section in {section for section, _ in named}:
        read = set(re.findall(rf"cfg\.{section}\.(\w+)", code))
        assert {key for name, key in named if name == section} == read


def test_every_key_of_the_schema_is_read_by_a_stage(root: Path) -> None:
    modules = [*(root / "stages").rglob("*.py"), *(root / "stages").rglob("*.jinja"), *(root / "tunepress").rglob("*.py")]
    modules = [path for path in modules if path.parent.name != "config" or path.stem in ("build", "data")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in modules)
    # sections handed on whole: asserted by the field names that peft and transformers know; and the sections themselves
    generic = {"adapter", "train", "params"}
    for module in sorted((root / "tunepress/config").glob("[a-z]*.py")):
        if module.stem in generic:
            continue
        classes = [node for node in ast.parse(module.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
        for node in [node for definition in classes for node in definition.body]:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                assert f".{node.target.id}" in code or f'"{node.target.id}"' in code, f"{module.stem}.{node.target.id}"
