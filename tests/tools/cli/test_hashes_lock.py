"""`python -m tools.cli.hashes`: the hashes that must be the same again, of a dvc.lock that is whole."""

import sys
from pathlib import Path

import pytest

from tools.cli import hashes

LOCK = """schema: '2.0'
stages:
  train:
    cmd: a
    outs: [{path: models/adapter, md5: 12.dir}, {path: metrics/speed.json, md5: '34'}]
  gate:
    cmd: b
"""


def command(path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["hashes", str(path)])
    with pytest.raises(SystemExit) as ended:
        hashes.main()
    return ended.value.code


def test_what_tells_seconds_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(LOCK, encoding="utf-8")
    assert hashes.hashes(tmp_path / "dvc.lock") == {"models/adapter": "12.dir"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LOCK[: LOCK.index(", {path")], " line 5: not YAML"),
        (LOCK.replace("  train:", "<<<<<<< HEAD\n  train:"), " line 3: a merge conflict that is not resolved"),
        ("", ": not written by DVC"),
        ("- a\n", ": must be a mapping"),
        ("stages: [a]\n", ": not written by DVC"),
        (LOCK.replace("md5", "hash"), ": not written by DVC"),
    ],
)
def test_a_broken_lock_is_one_line(content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "dvc.lock"
    lock.write_text(content, encoding="utf-8")
    ended = str(command(lock, monkeypatch))
    assert ended.startswith(f"{lock}{message}")
    assert "\n" not in ended


def test_no_lock_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(tmp_path / "dvc.lock", monkeypatch) == f"{tmp_path}/dvc.lock: not found; run `make repro`"
