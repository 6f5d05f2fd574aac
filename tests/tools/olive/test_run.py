"""Imported configurations as DVC runs them, on a tiny Phi-3."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clone import Clone
from tests.stages.outputs import hashes
from tests.tools.olive.documents import BLOCKS, FILE, MODEL, whole

pytestmark = pytest.mark.slow

# Once over a short prompt is enough to see that it works.
QUICK = ("benchmark.prompt_tokens=16", "benchmark.new_tokens=4", "benchmark.batch_sizes=[1]", "benchmark.repetitions=1")
TINY = ("base_model=tiny",)
BUILDER = {"builder": BLOCKS["merge and builder"]["passes"]["builder"]}


@pytest.fixture(scope="module")
def clone(root: Path, tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with the rows and the model that an Olive configuration names."""
    clone = Clone.of(root, tmp_path_factory.mktemp("imported") / "clone")
    rows = (root / "data/raw/tone.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[::7]
    (clone.folder / FILE).parent.mkdir()
    (clone.folder / FILE).write_text("".join(rows), encoding="utf-8")
    shutil.copytree(tiny_phi3, clone.folder / MODEL["model_name"])
    return clone


def run(clone: Clone, document: dict[str, Any], *overrides: str, until: str = "") -> list[str]:
    """Imports a configuration and runs it by the command in the experiment's file; returns the stages that ran.

    Args:
        clone: where.
        document: the configuration.
        overrides: of the experiment.
        until: a stage at which to stop, to save time.
    """
    (clone.folder / "olive-config.json").write_text(json.dumps(document), encoding="utf-8")
    environment = Path(sys.executable).parent.parent
    clone.run("make", "import-olive", f"VENV={environment}", "CONFIG=olive-config.json", "NAME=mine", "STRICT=1")
    command = (clone.folder / "conf/experiment/mine.yaml").read_text(encoding="utf-8").splitlines()[1].removeprefix("# ").split()
    return clone.ran(*command, *(part for override in overrides for part in ("-S", override)), *([until] if until else []))


def passes(*kinds: dict[str, Any]) -> dict[str, Any]:
    """The whole configuration with these passes."""
    return whole() | {"passes": {name: entry for kind in kinds for name, entry in kind.items()}}


def test_the_whole_example_runs_to_the_report(clone: Clone) -> None:
    ran = run(clone, whole(), *QUICK)
    assert ran[:5] == ["fetch", "prepare", "train", "merge", "build"]
    assert ran[-1] == "gate"
    figures = json.loads((clone.folder / "metrics/train.json").read_text(encoding="utf-8"))
    assert figures["steps"] == whole()["passes"]["lora"]["config"]["training_args"]["max_steps"]
    assert (clone.folder / "report/index.html").exists()


def test_without_lora_the_base_model_is_built(clone: Clone) -> None:
    assert run(clone, passes(BUILDER), *TINY, until="build")[-1] == "build"
    base, merged = (hashes(clone.folder / "models" / name)["model.safetensors"] for name in ("base", "merged"))
    assert base == merged


def test_qlora_without_a_merge_is_built_too(clone: Clone) -> None:
    assert run(clone, passes(BLOCKS["QLoRA"]["passes"], BUILDER), *TINY, "train.max_steps=1", until="build")[-1] == "build"
    assert (clone.folder / "models/adapter/quantization.json").exists()
    assert json.loads((clone.folder / "metrics/build.json").read_text(encoding="utf-8"))["precision"] == "int4"


def test_without_a_builder_the_merged_model_is_the_end(clone: Clone) -> None:
    document = passes(BLOCKS["LoRA"]["passes"], {"merge": {"type": "MergeAdapterWeights"}})
    assert run(clone, document, *TINY, "train.max_steps=1")[-1] == "merge"
