"""A small DVC project whose stages need no model, for tests that share its results."""

import shutil
from pathlib import Path

from tests.azure.azurite import Azurite
from tests.clone import Clone
from tests.conftest import ROOT

STAGES = """\
stages:
  many:
    cmd: python many.py
    deps: [many.py, size.txt]
    outs: [many]
  one:
    cmd: python -c "open('one.txt', 'w').write('${word}')"
    outs: [one.txt]
"""
MANY = """\
import pathlib
size = int(pathlib.Path("size.txt").read_text())
pathlib.Path("many").mkdir(exist_ok=True)
for number in range(40):
    pathlib.Path(f"many/{number}.bin").write_bytes(number.to_bytes(4, "big") * size)
"""


class Project(Clone):
    """A clone, with what names a storage account taken out of its environment, or one account put in."""

    def __init__(self, folder: Path, azurite: Azurite | None = None) -> None:
        super().__init__(folder)
        self.environment = {name: value for name, value in self.environment.items() if not name.startswith("AZURE_")}
        self.environment |= {"PYTHONPATH": str(ROOT), "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site")}
        if azurite:
            self.environment["AZURE_STORAGE_CONNECTION_STRING"] = azurite.connection_string

    @classmethod
    def new(cls, folder: Path, azurite: Azurite | None = None) -> "Project":
        """A project with its stages run and committed, and a bare repo beside it to share git's part."""
        folder.mkdir(parents=True)
        project = cls(folder, azurite)
        (folder / "dvc.yaml").write_text(STAGES)
        (folder / "many.py").write_text(MANY)
        (folder / "size.txt").write_text("5000\n")
        (folder / "params.yaml").write_text("word: one\n")
        shutil.copy2(ROOT / ".dockerignore", folder)
        project.run("git", "init", "--quiet", "--initial-branch", "main")
        project.introduce()
        project.run("dvc", "init", "--quiet")
        project.run("dvc", "repro", "--quiet")
        project.commit()
        project.run("git", "init", "--quiet", "--bare", "--initial-branch", "main", str(folder.parent / "git"))
        project.run("git", "remote", "add", "origin", str(folder.parent / "git"))
        return project

    def publish(self) -> None:
        """Commits what differs and hands it to git's part of the remote."""
        self.commit()
        self.run("git", "push", "--quiet", "--set-upstream", "origin", "main")

    def moved(self, folder: Path) -> "Project":
        """This project and its bare repo, copied."""
        shutil.copytree(self.folder.parent, folder, dirs_exist_ok=True)
        project = Project(folder / self.folder.name)
        project.environment |= {name: value for name, value in self.environment.items() if name.startswith("AZURE_")}
        project.run("git", "remote", "set-url", "origin", str(folder / "git"))
        return project

    def colleague(self, azurite: Azurite | None = None) -> "Project":
        """Another clone of what was pushed to git."""
        folder = self.folder.parent / f"colleague{len(list(self.folder.parent.iterdir()))}"
        self.run("git", "clone", "--quiet", str(self.folder.parent / "git"), str(folder))
        clone = Project(folder, azurite)
        clone.introduce()
        return clone

    def introduce(self) -> None:
        """Tells git who commits."""
        self.run("git", "config", "user.name", "test")
        self.run("git", "config", "user.email", "test@example.com")

    def made(self) -> dict[str, bytes]:
        """What the stages made, by path."""
        paths = [*(self.folder / "many").glob("*"), *self.folder.glob("one.txt")]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}

    def share(self, *command: str, code: int = 0, patience: float = 60) -> str:
        """`python -m tools.azure.share`."""
        return self.run("python", "-m", "tools.azure.share", "--patience", str(patience), *command, code=code)

    def set_up(self, url: str, *options: str, code: int = 0) -> str:
        """`python -m tools.azure.remote`."""
        return self.run("python", "-m", "tools.azure.remote", url, *options, code=code)
