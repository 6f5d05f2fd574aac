"""A peer's own virtual environment, made on first use from its file of pinned versions and again when that file changes."""

import shutil
import sys
from pathlib import Path

from benchmarks.children import environment, run

HERE = Path(__file__).resolve().parent
NATIVE = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"}  # for this machine's CPU, without what reads pictures


def requirements(peer: str) -> Path:
    """The file of pinned versions of a peer."""
    return HERE / f"{peer}.txt"


def pins(peer: str) -> dict[str, str]:
    """Its versions by package."""
    lines = requirements(peer).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def peer_python(peer: str, scratch: Path, cores: int = 1) -> Path:
    """The interpreter of a peer's environment.

    Args:
        peer: the name of its file, without the ending.
        scratch: where what pip prints is kept.
        cores: that may compile what comes as source.

    Raises:
        InputError: it cannot be made.
    """
    folder, pinned = HERE / f".{peer}-venv", requirements(peer)
    python, made_from = folder / "bin" / "python", folder / pinned.name
    wanted = pinned.read_text(encoding="utf-8")
    if not made_from.exists() or made_from.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        what, variables = f"{peer}'s environment", environment(scratch, kernels=False)
        # The tools that compile come in an environment of pip's own; older versions of pip know the first name only.
        constraints = dict.fromkeys(("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"), str(pinned))
        compiling = {**NATIVE, "CMAKE_BUILD_PARALLEL_LEVEL": str(cores), **constraints}
        run(what, scratch, variables, sys.executable, "-m", "venv", folder)
        quiet = ("-qq", "--disable-pip-version-check")
        run(what, scratch, variables | compiling, python, "-m", "pip", "install", *quiet, "--requirement", pinned)
        made_from.write_text(wanted, encoding="utf-8")  # last, so that half an environment is not taken for one
    return python
