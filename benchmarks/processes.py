"""Child processes: each with its own environment, wall time and peak memory, in this project's Python or in another tool's.

The kernel counts the size of the process that forks as the child's, so the parent must stay small: it imports no torch.

    python -m benchmarks.processes JOB REPORT        # what `call` starts
"""

import importlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunepress.core import KERNELS
from tunepress.core.errors import InputError
from tunepress.core.files import read_json, write_json

ROOT = Path(__file__).resolve().parent.parent
NATIVE = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"}  # llama.cpp for this machine's CPU, without its image code

Figures = dict[str, Any]


@dataclass(frozen=True)
class Usage:
    """What a process used, from its start to its end."""

    seconds: float
    cpu_seconds: float
    peak_memory_mb: int

    def figures(self) -> Figures:
        """As results have it."""
        seconds = {"process_seconds": round(self.seconds, 2), "cpu_seconds": round(self.cpu_seconds, 2)}
        return {**seconds, "peak_memory_mb": self.peak_memory_mb}


def environment(home: Path, kernels: bool) -> dict[str, str]:
    """The environment variables of a child.

    Args:
        home: where Hugging Face's libraries keep their caches, so that they start empty.
        kernels: whether the float kernels are pinned as in the stages; another tool runs without, as its users run it.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in KERNELS}
    own = {"PYTHONPATH": str(ROOT), "HF_HOME": str(home), "CUDA_VISIBLE_DEVICES": "", "OLIVE_DISABLE_TELEMETRY": "1"}
    return {**inherited, **own, **(KERNELS if kernels else {})}


def run(title: str, folder: Path, variables: Mapping[str, str], *command: str | Path) -> Usage:
    """Runs `command` in `folder` and waits for it; what it prints goes to output.log.

    Raises:
        InputError: it failed; the message has the last line that it printed.
    """
    with (folder / "output.log").open("w+b") as log:
        start = time.perf_counter()
        child = subprocess.Popen(command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _, status, used = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            child.wait()
            raise
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            log.seek(0)
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
            raise InputError(f"{title}: exit code {child.returncode}: {lines[-1] if lines else 'no output'}")
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, KiB on Linux
    return Usage(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit // 1_000_000)


def call(
    function: str,
    folder: Path,
    kernels: bool,
    title: str | None = None,
    python: str | Path = sys.executable,
    variables: Mapping[str, str] | None = None,
    **arguments: Any,
) -> tuple[Figures, Usage]:
    """Calls a function in a process of its own.

    Args:
        function: `package.module:name`; only the child imports it.
        folder: the child's working folder.
        kernels: whether the float kernels are pinned.
        title: of the work in an error message; None takes the function's name.
        python: the interpreter.
        variables: the environment; None takes `environment`'s.
        arguments: of the function, as JSON can hold them.

    Returns:
        What the function returned, and what its process used.
    """
    title = title or function.rpartition(":")[2]
    job, report = folder / "job.json", folder / "report.json"
    report.unlink(missing_ok=True)
    write_json(job, {"function": function, "kernels": kernels, "arguments": arguments})
    variables = variables if variables is not None else environment(folder, kernels)
    usage = run(title, folder, variables, python, "-m", "benchmarks.processes", job, report)
    return read_json(report), usage


def child(job: Path, report: Path) -> None:
    """The child's side of `call`."""
    work = read_json(job)
    if not work["kernels"]:
        for name in KERNELS:  # set by the import of tunepress, and read by torch later
            os.environ.pop(name, None)
    module, _, name = work["function"].partition(":")
    try:
        write_json(report, getattr(importlib.import_module(module), name)(**work["arguments"]))
    except InputError as error:
        sys.exit(str(error))


def workspace(folder: Path, *paths: Path | str) -> Path:
    """A folder laid out like the project, with links to some of the project's files and folders.

    Raises:
        InputError: one of them is missing.
    """
    for path in map(Path, paths):
        if not (ROOT / path).exists():
            raise InputError(f"{path}: not found; run `make repro`")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(ROOT / path)
    return folder


def make_repository(folder: Path, variables: Mapping[str, str]) -> None:
    """Makes a git repository with a commit, which DVCLive needs."""
    run("git", folder, variables, "git", "init", "--quiet")
    author = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost", "-c", "commit.gpgsign=false")
    run("git", folder, variables, "git", *author, "commit", "--quiet", "--allow-empty", "--message=empty")


def requirements(peer: str) -> Path:
    """The file of pinned versions of a tool that has its own environment; it is in the folder of a benchmark."""
    (file,) = Path(__file__).parent.glob(f"*/{peer}.txt")
    return file


def pins(peer: str) -> dict[str, str]:
    """The versions by package."""
    lines = requirements(peer).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def peer_python(peer: str, scratch: Path, cores: int = 1) -> Path:
    """The interpreter of a tool's own environment, which is made at the first use and again when the pinned versions change.

    Args:
        peer: the name of its requirements file without the suffix.
        scratch: where pip's output is kept.
        cores: for compiling.

    Raises:
        InputError: it cannot be made.
    """
    folder, pinned = Path(__file__).resolve().parent / f".{peer}-venv", requirements(peer)
    python, made_from = folder / "bin" / "python", folder / pinned.name
    content = pinned.read_text(encoding="utf-8")
    if not made_from.exists() or made_from.read_text(encoding="utf-8") != content:
        shutil.rmtree(folder, ignore_errors=True)
        title, variables = f"{peer}'s environment", environment(scratch, kernels=False)
        # pip installs build tools in an environment of its own; older versions of pip read the first variable only.
        constraints = dict.fromkeys(("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"), str(pinned))
        compiling = {**NATIVE, "CMAKE_BUILD_PARALLEL_LEVEL": str(cores), **constraints}
        run(title, scratch, variables, sys.executable, "-m", "venv", folder)
        quiet = ("-qq", "--disable-pip-version-check")
        run(title, scratch, variables | compiling, python, "-m", "pip", "install", *quiet, "--requirement", pinned)
        made_from.write_text(content, encoding="utf-8")  # last, so that an incomplete environment is made again
    return python


if __name__ == "__main__":
    child(Path(sys.argv[1]), Path(sys.argv[2]))
