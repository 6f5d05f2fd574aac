"""A project of its own for tests that run the whole graph."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tools.cli.hashes import hashes

SMOKE = ("-S", "+experiment=smoke")


def heed_interrupts() -> None:
    """For a child, before its command: what a shell starts in its background ignores Ctrl-C, and so do the children of that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Clone:
    """A git clone with what the working tree holds, and the commands a user would type in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder.parent),  # no git identity, no DVC configuration, no Hugging Face cache of this machine
            "COLUMNS": "120",
        }

    @classmethod
    def of(cls, root: Path, folder: Path) -> "Clone":
        """A repo of its own with the files of `root` that git knows or would add, committed."""
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.splitlines():
            if (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, folder / name)
        clone = cls(folder)
        clone.run("git", "init", "--quiet", "--initial-branch", "main")
        clone.run("git", "config", "user.name", "test")  # DVC stashes a changed tree as a commit
        clone.run("git", "config", "user.email", "test@example.com")
        clone.commit()
        return clone

    def copy(self, folder: Path) -> "Clone":
        """The same in another folder, with what has run in it."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Clone(folder)

    def run(self, *command: str, code: int = 0, environment: dict[str, str] | None = None) -> str:
        result = subprocess.run(
            command, cwd=self.folder, env=self.environment | (environment or {}), capture_output=True, text=True, timeout=900
        )
        assert result.returncode == code, result.stdout[-2000:] + result.stderr[-4000:]
        return result.stdout + result.stderr

    def ran(self, *command: str, environment: dict[str, str] | None = None) -> list[str]:
        """The stages that a command ran, in order."""
        return re.findall(r"Running stage '([^']+)'", self.run(*command, environment=environment))

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "-m", "state")

    def outputs(self) -> dict[str, str]:
        """The hashes of dvc.lock, by output, except those that contain seconds."""
        return hashes(self.folder / "dvc.lock")

    def restore(self) -> None:
        """Goes back to what is committed."""
        self.run("git", "checkout", "--quiet", ".")
        self.run("dvc", "checkout", "--quiet", "--force")
