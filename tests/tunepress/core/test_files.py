"""Outputs: all of a new one, or all of the old one."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunepress.core.files import (
    atomic_output,
    read_csv,
    read_jsonl,
    recover_all,
    remove,
    size_mb,
    write_csv,
    write_json,
    write_jsonl,
)


def make_file(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")


def make_folder(path: Path, content: str) -> None:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / content).write_text(content, encoding="utf-8")


Make = Callable[[Path, str], None]
KINDS = [pytest.param(make_file, id="file"), pytest.param(make_folder, id="folder")]


def tree(folder: Path) -> dict[str, str | None]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8") if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("old", KINDS)
@pytest.mark.parametrize("new", KINDS)
def test_a_block_that_ends_well_leaves_only_the_new_output(tmp_path: Path, old: Make, new: Make) -> None:
    place, twin = tmp_path / "here" / "out", tmp_path / "there" / "out"
    place.parent.mkdir()
    twin.parent.mkdir()
    old(place, "old")
    new(twin, "new")
    with atomic_output(place) as partial:
        new(partial, "new")
    assert tree(place.parent) == tree(twin.parent)


@pytest.mark.parametrize("old", KINDS)
@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_output_and_nothing_else(
    tmp_path: Path, old: Make, new: Make, error: type[BaseException]
) -> None:
    old(tmp_path / "out", "old")
    before = tree(tmp_path)
    with pytest.raises(error), atomic_output(tmp_path / "out") as partial:
        new(partial, "half")
        raise error
    assert tree(tmp_path) == before


@pytest.mark.parametrize("old", KINDS)
def test_a_block_that_writes_nothing_leaves_the_old_output(tmp_path: Path, old: Make) -> None:
    old(tmp_path / "out", "old")
    before = tree(tmp_path)
    with pytest.raises(FileNotFoundError), atomic_output(tmp_path / "out"):
        pass
    assert tree(tmp_path) == before


@pytest.mark.parametrize("new", KINDS)
def test_a_block_that_raises_leaves_nothing_where_nothing_was(tmp_path: Path, new: Make) -> None:
    with pytest.raises(RuntimeError), atomic_output(tmp_path / "out") as partial:
        new(partial, "half")
        raise RuntimeError
    assert tree(tmp_path) == {}


# kills, power losses and full disks


def replace(place: Path, new: Make) -> None:
    with atomic_output(place) as partial:
        new(partial, "new")


def child(action: Callable[[], None]) -> int:
    """How a process of its own ends that does this: its exit code, or minus the signal."""
    process = os.fork()
    if not process:
        code = 255
        try:
            action()
            code = 0
        except OSError as error:
            code = error.errno or code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def killed_before(step: int, action: Callable[[], None]) -> Callable[[], None]:
    """The same, killed before its `step`th call to the file system."""

    def run() -> None:
        left = [step]

        def count(event: str, _: Any) -> None:
            if event == "open" or (event.startswith("os.") and event != "os.kill"):
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1

        sys.addaudithook(count)  # for as long as this process lives
        action()

    return run


@pytest.mark.slow
@pytest.mark.parametrize("old", KINDS)
@pytest.mark.parametrize("new", KINDS)
def test_a_kill_at_any_moment_leaves_the_old_output_or_the_new_one(tmp_path: Path, old: Make, new: Make) -> None:
    place = tmp_path / "out"
    contents: list[str] = []
    for step in range(200):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        old(place, "old")
        code = child(killed_before(step, lambda: replace(place, new)))
        recover_all(tmp_path)
        content = tree(place)["inner/" + name] if place.is_dir() and (name := next((place / "inner").iterdir()).name) else None
        contents.append(content if content is not None else place.read_text(encoding="utf-8"))
        replace(place, new)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        if not code:
            break
        assert code == -signal.SIGKILL
    assert len(contents) > 10
    assert contents == sorted(contents, reverse=True)  # "old" until it is replaced, then "new"
    assert set(contents) == {"old", "new"}


@pytest.mark.parametrize("new", KINDS)
def test_the_disk_has_all_of_an_output_before_it_gets_its_name(
    tmp_path: Path, new: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        events.append("renamed")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    replace(tmp_path / "out", new)
    whole = {".out.partial"} if new is make_file else {"new", "inner", ".out.partial"}
    assert set(events[: events.index("renamed")]) == whole
    assert events[events.index("renamed") + 1 :] == [tmp_path.name]


@pytest.mark.parametrize("write", [write_json, write_jsonl])
def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path, write: Callable[[Path, list[dict[str, Any]]], None]) -> None:
    make_file(tmp_path / "rows", "old")

    def action() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        write(tmp_path / "rows", [{"text": "a" * 100}] * 100)

    assert os.strerror(child(action)) == "File too large"
    assert tree(tmp_path) == {"rows": "old"}


FULL = """import sys
from pathlib import Path
from tunepress.core.files import atomic_output
folder = Path(sys.argv[1])
(folder / "out").mkdir()
(folder / "out/weights").write_bytes(bytes(30_000))
try:
    with atomic_output(folder / "out") as partial:
        partial.mkdir()
        for number in range(9):
            (partial / str(number)).write_bytes(bytes(9_000))
except OSError as error:
    print(error.strerror, [(path.name, len(list(path.iterdir()))) for path in folder.iterdir()])
"""


def test_a_disk_that_fills_up_leaves_the_old_folder(tmp_path: Path, root: Path) -> None:
    unshare = shutil.which("unshare")
    mount = f'mount -t tmpfs -o size=64k tmpfs "{tmp_path}"'
    if not unshare or subprocess.run([unshare, "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no file system of 64 kB can be mounted here")
    command = f'{mount} && exec "{sys.executable}" -c "$0" "{tmp_path}"'
    done = subprocess.run([unshare, "-rm", "sh", "-c", command, FULL], cwd=root, capture_output=True, text=True)
    assert done.stdout == "No space left on device [('out', 1)]\n", done.stderr


@pytest.mark.parametrize("left", KINDS)
@pytest.mark.parametrize("new", KINDS)
def test_what_a_killed_run_left_does_not_get_into_the_output(tmp_path: Path, left: Make, new: Make) -> None:
    with atomic_output(tmp_path / "out") as partial:
        pass_on = partial
        new(partial, "first")
    left(pass_on, "left")
    with atomic_output(tmp_path / "out") as partial:
        assert not partial.exists()
        new(partial, "second")
    assert not pass_on.exists()
    assert "left" not in str(tree(tmp_path))


def test_the_old_output_is_kept_until_the_block_ends(tmp_path: Path) -> None:
    make_folder(tmp_path / "out", "old")
    before = tree(tmp_path / "out")
    with atomic_output(tmp_path / "out") as partial:
        make_folder(partial, "new")
        assert tree(tmp_path / "out") == before


def test_a_missing_parent_is_made(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b" / "c.json", {"ä": 1})
    assert (tmp_path / "a/b/c.json").read_text(encoding="utf-8") == '{\n  "ä": 1\n}\n'


@pytest.mark.parametrize("write", [write_json, write_jsonl])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path, write: Callable[[Path, list[dict[str, Any]]], None]) -> None:
    make_file(tmp_path / "rows", "old")
    with pytest.raises(TypeError):
        write(tmp_path / "rows", [{"good": 1}, {"bad": object()}])
    assert tree(tmp_path) == {"rows": "old"}


def test_removing_a_link_to_a_folder_leaves_the_folder(tmp_path: Path) -> None:
    make_folder(tmp_path / "kept", "inside")
    (tmp_path / "link").symlink_to(tmp_path / "kept", target_is_directory=True)
    remove(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "kept/inner/inside").exists()


@pytest.mark.parametrize(
    "text", ["a\u2028b\u2029c", "a\x85b\x0bc\x0cd\x1ce", "line\r\nbreak\n", '"\\', "", "東京 😀", "\x00", "\ufeff"]
)
def test_any_text_comes_back_from_jsonl(tmp_path: Path, text: str) -> None:
    rows: list[dict[str, Any]] = [{"text": text, text: 1}, {"text": "next", "nested": {"list": [1, 2.5, None, True]}}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows
    assert (tmp_path / "rows.jsonl").read_bytes().count(b"\n") == 2


def test_no_rows_are_an_empty_file(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [])
    assert (tmp_path / "rows.jsonl").read_bytes() == b""
    assert read_jsonl(tmp_path / "rows.jsonl") == []


def test_json_keeps_the_order_of_its_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "out.json", {"b": 1, "a": 2})
    assert list(json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))) == ["b", "a"]


def test_size_is_in_millions_of_bytes_over_all_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "inner/deep").mkdir(parents=True)
    (tmp_path / "one").write_bytes(bytes(1_500_000))
    (tmp_path / "inner/deep/two").write_bytes(bytes(260_000))
    assert size_mb(tmp_path / "one") == 1.5
    assert size_mb(tmp_path) == 1.76
    assert size_mb(tmp_path / "inner") == 0.26


@pytest.mark.parametrize("length", [131_072, 131_073, 1_000_000])  # Python's own limit of a field is the first
def test_a_table_holds_prompts_of_any_length(tmp_path: Path, length: int) -> None:
    rows = [{"prompt": "x" * (length - 4) + '",\n"', "answer": "y"}]
    write_csv(tmp_path / "table.csv", rows, ["prompt", "answer"])
    assert read_csv(tmp_path / "table.csv") == rows
