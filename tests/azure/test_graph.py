"""The whole graph on rows in Azure: what a changed blob runs again, what an unchanged one does, and a run without a network."""

import json
from pathlib import Path

import pytest

from tests.azure.azurite import Azurite
from tests.clone import SMOKE, Clone

ROWS = "abfs://rows/tone.jsonl"
IDENTIFIED = "data/identified/files.json"


@pytest.fixture(scope="module")
def clone(azurite: Azurite, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A project whose rows are in Azure, run once up to its rows."""
    azurite.upload("rows", "tone.jsonl", (root / "data/raw/tone.jsonl").read_bytes())
    clone = Clone.of(root, tmp_path_factory.mktemp("graph") / "project")
    clone.environment |= {
        "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
        "TUNEPRESS_NETWORK_SECONDS": "5",
        "NO_PROXY": "127.0.0.1",
    }
    ran = clone.ran("dvc", "exp", "run", *SMOKE, "-S", f"data.files=[{ROWS}]", "prepare")
    assert set(ran) == {"fetch", "identify@files", "collect@files", "prepare"}
    clone.commit()
    return clone


def test_the_version_is_in_git_and_the_key_is_not(clone: Clone, azurite: Azurite) -> None:
    tracked = clone.run("git", "ls-files").splitlines()
    assert IDENTIFIED in tracked
    assert not [name for name in tracked if name.startswith("data/collected")]
    (entry,) = json.loads((clone.folder / IDENTIFIED).read_text())
    assert (entry["url"], len(entry["md5"])) == (ROWS, 32)
    key = azurite.account_key.encode()
    kept = [path for path in clone.folder.rglob("*") if path.is_file() and not path.is_symlink() and key in path.read_bytes()]
    assert kept == []


def test_an_unchanged_blob_runs_nothing_again(clone: Clone) -> None:
    assert clone.ran("dvc", "repro", "prepare") == ["identify@files"]
    assert clone.run("git", "status", "--porcelain") == ""


def test_a_changed_blob_runs_what_depends_on_it(clone: Clone, azurite: Azurite, root: Path) -> None:
    rows = (root / "data/raw/tone.jsonl").read_bytes().splitlines(keepends=True)
    azurite.upload("rows", "tone.jsonl", b"".join(rows[:-1]))
    assert clone.ran("dvc", "repro", "prepare") == ["identify@files", "collect@files", "prepare"]
    assert json.loads((clone.folder / "metrics/prepare.json").read_text())["rows"] == len(rows) - 1
    clone.commit()


def test_without_a_network_a_fresh_clone_goes_on_with_the_rows_in_the_cache(
    clone: Clone, azurite: Azurite, tmp_path: Path
) -> None:
    fresh = Clone(tmp_path / "fresh")
    fresh.environment |= clone.environment
    clone.run("git", "clone", "--quiet", str(clone.folder), str(fresh.folder))
    fresh.run("dvc", "cache", "dir", "--local", str(clone.folder / ".dvc/cache"))
    fresh.run("dvc", "checkout", "--quiet", "--allow-missing")
    azurite.stop()
    try:
        output = fresh.run("dvc", "repro", "prepare")
    finally:
        azurite.start()
    assert f"identify: {ROWS}: no answer within 5 s" in output
    assert "Stage 'prepare' didn't change, skipping" in output
    assert fresh.run("git", "status", "--porcelain") == ""


def test_an_experiment_in_the_queue_asks_for_itself(clone: Clone, azurite: Azurite, root: Path) -> None:
    azurite.upload("rows", "other.jsonl", (root / "data/raw/tone.jsonl").read_bytes())
    clone.run("dvc", "exp", "run", "--queue", "--name", "other", *SMOKE, "-S", "data.files=[abfs://rows/other.jsonl]", "prepare")
    clone.run("dvc", "exp", "run", "--run-all")
    (experiment,) = clone.run("git", "for-each-ref", "--format=%(refname)", "refs/exps/*/*/other").splitlines()
    (entry,) = json.loads(clone.run("git", "show", f"{experiment}:{IDENTIFIED}"))
    assert entry["url"] == "abfs://rows/other.jsonl"
