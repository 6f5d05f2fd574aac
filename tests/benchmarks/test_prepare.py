"""The benchmark of prepare on a small file."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import prepare
from benchmarks.harness import parse
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl


def test_rows_have_so_many_words_and_a_label(tmp_path: Path) -> None:
    for name in ("first", "second"):
        prepare.write_rows(tmp_path / name, 100)
    rows = read_jsonl(tmp_path / "first")
    assert len(rows) == 100
    assert {len(row["phrase"].split()) for row in rows} == {prepare.WORDS}
    assert len({row["tone"] for row in rows}) == 4
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_too_few_rows_and_a_missing_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^--rows: must be at least 1000, got 10$"):
        prepare.check(parse(prepare.BENCHMARK, ["--rows", "10"]))
    monkeypatch.setattr(prepare, "ROOT", tmp_path)
    with pytest.raises(InputError, match=r"^models/base: not found; run `dvc repro fetch`$"):
        prepare.check(parse(prepare.BENCHMARK, []))


@pytest.mark.slow
def test_a_small_file_has_its_line(root: Path, tmp_path: Path, tiny_phi3: Path) -> None:
    """With a tiny model: a clone has no other before its first run."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(tiny_phi3)
    for name in ("data", "conf"):
        (tmp_path / name).symlink_to(root / name)
    start = "prepare.WORDS, prepare.ROOT = 8, pathlib.Path(sys.argv.pop(1)); prepare.main(prepare.BENCHMARK)"
    code = f"import sys, pathlib; from benchmarks import prepare; {start}"
    command = [sys.executable, "-c", code, str(tmp_path), "--rows", "1000"]
    ended = subprocess.run(command, cwd=root, env={"PATH": "", "TMPDIR": str(tmp_path)}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "│ 1,000 │" in ended.stdout
    assert "written to" not in ended.stdout
