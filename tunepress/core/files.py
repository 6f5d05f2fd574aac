"""Files and folders that a stage writes: atomically, so that a failed run leaves the previous output complete."""

import csv
import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunepress.core.errors import InputError

BACKUP_SUFFIX = ".earlier.partial"
CSV_FIELD_LIMIT = 2**31 - 1  # characters; the csv module's own limit is 131,072, and a C long has 32 bits on Windows


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Yields a temporary path for a file or a folder, which replaces `path` when the block ends without an error.

    A kill at any moment leaves the old output or the new one, each complete. A folder cannot replace another one in a single
    step: between two steps the old one is at `backup_path`, from where `recover` restores it.
    """
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    remove(partial)
    try:
        yield partial
        fsync_tree(partial)  # raises if the block wrote nothing, before the old output is moved
        if os.path.lexists(path) and (path.is_dir() or partial.is_dir()):
            path.rename(backup_path(path))
        partial.replace(path)
        fsync(path.parent)
    finally:
        recover(path)
        remove(partial)


def backup_path(path: Path) -> Path:
    """Where the old output is kept until the new one has replaced it."""
    return path.with_name(f".{path.name}{BACKUP_SUFFIX}")


def recover(path: Path) -> None:
    """Restores the backup of an output whose replacement was killed, or deletes a backup that is not needed."""
    backup = backup_path(path)
    if os.path.lexists(path):
        remove(backup)
    elif os.path.lexists(backup):
        backup.rename(path)


def recover_all(folder: Path) -> None:
    """Calls `recover` for all outputs of a folder."""
    for backup in folder.glob(f".*{BACKUP_SUFFIX}"):
        recover(folder / backup.name.removeprefix(".").removesuffix(BACKUP_SUFFIX))


def fsync_tree(path: Path) -> None:
    """Waits until a file, or a folder with everything in it, is on the disk.

    Otherwise a power loss soon after the renaming can leave empty or truncated files. It takes as long as the disk needs for
    the data that is not written yet: at most 16 s for a model of 8 GB at 500 MB/s, once.
    """
    for folder, _, names in os.walk(path, topdown=False):
        for file in (Path(folder, name) for name in names):
            if not file.is_symlink():
                fsync(file)
        fsync(Path(folder))
    if not path.is_dir():
        fsync(path)


def fsync(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do not support it, fsync(2)
            raise
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    with atomic_output(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Reads a file of `write_json`.

    Raises:
        InputError: the file does not exist.
    """
    if not path.exists():
        raise InputError(f"{path}: not found; run `make repro`")
    return json.loads(path.read_text(encoding="utf-8"))


def write_csv(path: Path, rows: list[dict[str, str]], columns: list[str]) -> None:
    """Writes a CSV file with a header. Every cell is quoted, because a model's answer may contain any character."""
    with atomic_output(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Reads a file of `write_csv`.

    Raises:
        InputError: the file does not exist.
    """
    if not path.exists():
        raise InputError(f"{path}: not found; run `make repro`")
    with path.open(newline="", encoding="utf-8") as file:
        return parse_csv(file.read())


def parse_csv(text: str) -> list[dict[str, str]]:
    """The rows of a file of `write_csv` from its content."""
    csv.field_size_limit(CSV_FIELD_LIMIT)
    return list(csv.DictReader(io.StringIO(text, newline="")))


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_output(path) as partial:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        partial.write_text("".join(lines), encoding="utf-8")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_mb(path: Path) -> float:
    """Size of a file or of all files in a folder, in MB of 1,000,000 bytes."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return round(sum(file.stat().st_size for file in files) / 1e6, 2)
