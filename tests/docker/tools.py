"""Programs of requirements/dev.txt, and the pins of docker/versions.env."""

import os
import shutil
import sys
from pathlib import Path


def program(name: str) -> str:
    """The path of a program of this environment, otherwise of one on the PATH."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert path, f"{name} is not installed; run `make setup-dev`"
    return path


def pins(root: Path) -> dict[str, str]:
    """docker/versions.env, read as make, sh and compose read it."""
    lines = (root / "docker/versions.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
