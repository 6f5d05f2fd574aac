"""Olive's own virtual environment, made on first use from olive.txt and again when that file changes."""

import shutil
import sys
from pathlib import Path

from benchmarks.children import environment, run

HERE = Path(__file__).resolve().parent
FOLDER = HERE / ".olive-venv"
REQUIREMENTS = HERE / "olive.txt"


def olive_python(scratch: Path) -> Path:
    """The interpreter of Olive's environment.

    Raises:
        InputError: it cannot be made.
    """
    python, made_from = FOLDER / "bin" / "python", FOLDER / REQUIREMENTS.name
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if not made_from.exists() or made_from.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(FOLDER, ignore_errors=True)
        variables = environment(scratch, kernels=False)
        run("olive's environment", scratch, variables, sys.executable, "-m", "venv", FOLDER)
        quiet = ("-qq", "--disable-pip-version-check")
        run("olive's environment", scratch, variables, python, "-m", "pip", "install", *quiet, "--requirement", REQUIREMENTS)
        made_from.write_text(wanted, encoding="utf-8")  # last, so that half an environment is not taken for one
    return python
