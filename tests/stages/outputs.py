"""What a stage leaves, and a stage in a process of its own."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def hashes(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a folder, by its name."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def started(name: str, project: Path, *overrides: str, before: str = "") -> "subprocess.Popen[str]":
    """A stage that has been started in a project's folder, after some other code."""
    code = f"import runpy, sys\n{before}\nsys.argv[0] = {name!r}\nrunpy.run_module('stages.{name}', run_name='__main__')"
    command = [sys.executable, "-c", code, *overrides]
    return subprocess.Popen(command, cwd=project, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
