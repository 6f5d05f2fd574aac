"""Outputs of a stage: written beside their place and renamed, so that a failed run leaves the earlier ones whole."""

import csv
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunepress.core.errors import InputError

EARLIER = ".earlier.partial"
CSV_FIELD_LIMIT = 2**31 - 1  # characters; the csv module's own limit is 131,072, and a C long has 32 bits on Windows


def remove(path: Path) -> None:
    """Deletes a file or a folder, whichever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Yields the path to write a file or a folder to; it takes the place of `path` when the block ends well.

    A kill at any moment leaves the old output or the new one, both whole. A folder cannot take another's place in one step:
    between two steps the old one is beside its place, from where `recover` brings it back.
    """
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    remove(partial)
    try:
        yield partial
        fsync_tree(partial)  # raises where the block wrote nothing, before the earlier output goes
        if os.path.lexists(path) and (path.is_dir() or partial.is_dir()):
            path.rename(backup_path(path))
        partial.replace(path)
        fsync(path.parent)
    finally:
        recover(path)
        remove(partial)


def backup_path(path: Path) -> Path:
    """Where an output waits until the new one is in its place."""
    return path.with_name(f".{path.name}{EARLIER}")


def recover(path: Path) -> None:
    """Brings an output back that was about to be replaced by a process that was killed, or deletes what that did not need."""
    kept = backup_path(path)
    if os.path.lexists(path):
        remove(kept)
    elif os.path.lexists(kept):
        kept.rename(path)


def recover_all(folder: Path) -> None:
    """Does so for all outputs of a folder."""
    for kept in folder.glob(f".*{EARLIER}"):
        recover(folder / kept.name.removeprefix(".").removesuffix(EARLIER))


def fsync_tree(path: Path) -> None:
    """Waits until the disk has a file, or a folder with all that is in it.

    Without it a power loss soon after the renaming can leave files that are empty or cut. It takes as long as the disk needs for
    what it has not written by then: for a model of 8 GB at 500 MB/s at most 16 s, once.
    """
    for folder, _, names in os.walk(path, topdown=False):
        for file in (Path(folder, name) for name in names):
            if not file.is_symlink():
                fsync(file)
        fsync(Path(folder))
    if not path.is_dir():
        fsync(path)


def fsync(path: Path) -> None:
    """Waits until the disk has a file, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot, fsync(2)
            raise
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON."""
    with atomic_output(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote.

    Raises:
        InputError: there is no such file.
    """
    if not path.exists():
        raise InputError(f"{path}: not found; run `make repro`")
    return json.loads(path.read_text(encoding="utf-8"))


def write_csv(path: Path, rows: list[dict[str, str]], columns: list[str]) -> None:
    """Writes a CSV with a header. All is quoted: a model's answer may hold any character."""
    with atomic_output(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Reads what `write_csv` wrote.

    Raises:
        InputError: there is no such file.
    """
    if not path.exists():
        raise InputError(f"{path}: not found; run `make repro`")
    csv.field_size_limit(CSV_FIELD_LIMIT)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes one JSON object a line."""
    with atomic_output(path) as partial:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        partial.write_text("".join(lines), encoding="utf-8")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Reads what `write_jsonl` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_mb(path: Path) -> float:
    """Size of a file or of all files in a folder, in MB of 1,000,000 bytes."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return round(sum(file.stat().st_size for file in files) / 1e6, 2)
