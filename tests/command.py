"""A command of the project in this process: its exit code and what it prints, without the seconds that imports take."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from unittest import mock


def run_module(
    name: str, *arguments: str, folder: Path, stdin: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m name` in a folder. What native code prints is part of the output; warnings are shown as by default."""
    standard_input = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as stdout,
        tempfile.TemporaryFile("w+", encoding="utf-8") as stderr,
    ):
        with (
            redirected(1, stdout),
            redirected(2, stderr),
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
            mock.patch.object(sys, "stdin", standard_input),
            mock.patch.object(sys, "argv", [name, *arguments]),
            mock.patch.dict(os.environ, environment or os.environ, clear=True),
            contextlib.chdir(folder),
            default_warnings(),
        ):
            code = exit_code(name)
            stdout.flush()
            stderr.flush()
        return subprocess.CompletedProcess([name, *arguments], code, read(stdout), read(stderr))


def exit_code(name: str) -> int:
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def redirected(descriptor: int, file: IO[str]) -> Iterator[None]:
    """Sends what is written to a file descriptor to a file."""
    kept = os.dup(descriptor)
    os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


@contextlib.contextmanager
def default_warnings() -> Iterator[None]:
    """Python's own filters, and warnings on standard error, where pytest collects them."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: str | None = None
    ) -> None:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))

    with warnings.catch_warnings():
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", "'.*' found in sys.modules after import of package", RuntimeWarning)
        warnings.showwarning = show
        yield


def read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
