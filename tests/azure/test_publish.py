"""make azure-publish: the model of a run with its card and figures, once for the same bytes."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.cli import main as dvc
from omegaconf import OmegaConf

from tests.azure.azurite import Azurite
from tests.azure.cloud import Cloud
from tests.azure.machine_learning import CONTAINER, GROUP, REGISTRY, SUBSCRIPTION, UPLOADED, WORKSPACE, MachineLearning
from tools.azure import publish
from tunepress.core.files import write_json

PLACE = ["--subscription-id", SUBSCRIPTION, "--resource-group", GROUP, "--workspace-name", WORKSPACE]
Said = Callable[..., str]
BESIDE = {"MODEL_CARD.md": b"# card", "conformance.jsonl": b"{}"}
FILES = {"model.onnx": b"onnx", "prompt.json": b"{}", **BESIDE, "summary.json": b""}


@pytest.fixture
def run(storage: Azurite, root: Path, tmp_path: Path) -> Path:
    """A project whose last run is committed."""
    beside = [f"models/{name}" for name in BESIDE]
    outs = {"build": {"cmd": "true", "outs": ["models/onnx"]}, "report": {"cmd": "true", "outs": beside}}
    (tmp_path / "models/onnx").mkdir(parents=True)
    for name in ("model.onnx", "prompt.json"):
        (tmp_path / "models/onnx" / name).write_bytes(FILES[name])
    for name, content in BESIDE.items():
        (tmp_path / "models" / name).write_bytes(content)
    write_json(tmp_path / "metrics/summary.json", {"accuracy": 0.96, "gate": "passed"})
    shutil.copyfile(root / "params.yaml", tmp_path / "params.yaml")
    OmegaConf.save({"stages": outs}, tmp_path / "dvc.yaml")
    git("init", "--quiet")
    assert dvc(["init", "--quiet"]) == dvc(["commit", "--force", "--quiet"]) == 0
    git("add", "--all")
    git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--message", "run")
    return tmp_path


def git(*command: str) -> str:
    return subprocess.run(["git", *command], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def published(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """Runs the command and gives the line that it ends with."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["publish", *arguments])
        try:
            publish.main()
        except SystemExit as ended:
            assert "\n" not in str(ended.code)
            return str(ended.code)
        return capsys.readouterr().out.strip()

    return run


def test_a_model_is_registered_with_card_figures_and_provenance(
    run: Path,
    storage: Azurite,
    machine_learning: MachineLearning,
    published: Said,
) -> None:
    assert published("tone", *PLACE).startswith("azure-publish: model tone:")
    ((name, version), registered) = machine_learning.models.popitem()
    blobs = {blob.name for blob in storage.container(CONTAINER).list_blobs()}
    assert name == "tone"
    assert registered["tags"].items() >= {"accuracy": "0.96", "gate": "passed"}.items()
    assert registered["properties"]["git_revision"] == git("rev-parse", "HEAD")
    assert registered["properties"]["dvc_md5"].endswith(".dir")
    assert registered["properties"]["sha256"].startswith(version)
    place = registered["modelUri"].partition("/paths/")[2]
    assert {f"{place}/{file}" for file in FILES} <= blobs
    assert sorted(path.name for path in (run / "models").iterdir()) == [".gitignore", *BESIDE, "onnx"]


def test_the_same_bytes_are_registered_once_and_others_beside_them(
    run: Path,
    in_cloud: Cloud,
    machine_learning: MachineLearning,
    published: Said,
) -> None:
    published("tone", *PLACE)
    sent = len([request for request in in_cloud.requests if request.method == "PUT"])
    assert published("tone", *PLACE).endswith("already has these files")
    assert len([request for request in in_cloud.requests if request.method == "PUT"]) == sent
    write_json(run / "metrics/summary.json", {"accuracy": 0.97})
    published("tone", *PLACE)
    assert len(machine_learning.models) == 2
    assert list(machine_learning.models.values())[1]["properties"]["git_revision"] == f"{git('rev-parse', 'HEAD')}-dirty"


def test_a_registry_takes_it_too(
    run: Path,
    storage: Azurite,
    machine_learning: MachineLearning,
    published: Said,
) -> None:
    assert f"of registry {REGISTRY}" in published("tone", "--registry-name", REGISTRY)
    assert len(machine_learning.shared_models) == 1
    assert {blob.name.rpartition("/")[2] for blob in storage.container(UPLOADED).list_blobs()} == set(FILES)


def test_no_name_is_refused(published: Said) -> None:
    assert published("", *PLACE).startswith("azure-publish: NAME=: must be a name")


@pytest.mark.parametrize("path", ["models/onnx", *(f"models/{name}" for name in BESIDE), "metrics/summary.json"])
def test_a_run_without_one_of_its_parts_is_refused(path: str, run: Path, published: Said) -> None:
    (run / path).rename(run / "away")
    assert published("tone", *PLACE) == f"azure-publish: {path}: not found; run `make repro`"


def test_a_model_that_is_not_the_committed_one_is_refused(run: Path, machine_learning: MachineLearning, published: Said) -> None:
    changed = run / "models/onnx/model.onnx"
    changed.unlink()
    changed.write_bytes(b"other")
    assert "models/onnx/: is not the version in dvc.lock" in published("tone", *PLACE)
    assert machine_learning.models == {}


def test_a_workspace_that_is_not_there_is_told(run: Path, published: Said) -> None:
    message = published("tone", *PLACE[:-1], "other")
    assert "of workspace other of resource group group" in message
    assert "not found; check the names" in message
