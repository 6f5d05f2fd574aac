"""A project into which an Olive configuration is brought, with the rows and the model that it names."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf

from tests.tools.olive.documents import FILE, MODEL
from tools.olive import __main__ as command
from tools.olive.document import leaves
from tools.olive.translation import Translation, translate
from tunepress.core.params import CONF, compose_conf

Import = Callable[..., str]
EXPERIMENT = Path("conf/experiment/mine.yaml")


@pytest.fixture
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with conf/, and brought/ with an Olive configuration's rows and model."""
    shutil.copytree(root / CONF, tmp_path / CONF)
    rows = (root / "data/raw/tone.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[::7]
    (tmp_path / "brought" / FILE).parent.mkdir(parents=True)
    (tmp_path / "brought" / FILE).write_text("".join(rows), encoding="utf-8")
    (tmp_path / "brought" / MODEL["model_name"]).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bring(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Import:
    """Runs `python -m tools.olive` on a configuration and returns what it prints, its error in the end."""

    def bring(document: Any, *arguments: str, name: str = "mine", suffix: str = ".json") -> str:
        config = project / f"brought/olive-config{suffix}"
        text = json.dumps(document) if suffix == ".json" else yaml.safe_dump(document, sort_keys=False)
        config.write_text(document if isinstance(document, str) else text, encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["import-olive", str(config.relative_to(project)), "--name", name, *arguments])
        message = ""
        try:
            command.main()
        except SystemExit as ended:
            message = str(ended.code)
        return capsys.readouterr().out + message

    return bring


def composed(*overrides: str) -> Any:
    """The composed configuration of the imported experiment."""
    return OmegaConf.create(compose_conf(["+experiment=mine", *overrides]))


def lines(document: dict[str, Any], project: Path) -> dict[str, str]:
    """The text of each line of the table that is not supported, by the field's path."""
    return {field.leaf.path: field.mapping.text for field in translated(document, project).unsupported}


def translated(document: dict[str, Any], project: Path) -> Translation:
    translation = translate(document, project / "brought")
    paths = sorted(field.leaf.path for field in translation.fields)
    assert paths == sorted(leaf.path for leaf in leaves(document, "")), "each field has one line"
    return translation
