"""That a key is nowhere but where the user keeps it: not in git, in what is printed, in other files, or in an image's context."""

import subprocess
from pathlib import Path

import pytest

from tests.azure.azurite import Azurite
from tests.azure.project import Project
from tests.conftest import ROOT


@pytest.fixture(params=["account key", "SAS token"])
def secret(request: pytest.FixtureRequest, azurite: Azurite) -> tuple[str, str]:
    """A connection string and what in it nobody else may see."""
    if request.param == "account key":
        return azurite.connection_string, azurite.account_key
    signature = dict(part.split("=", 1) for part in azurite.sas_token.split("&"))["sig"]
    return f"BlobEndpoint={azurite.account_url};SharedAccessSignature={azurite.sas_token}", signature


def holders(folder: Path, secret: str) -> set[str]:
    """The files under a folder that hold a text."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)) for path in files if secret.encode() in path.read_bytes()}


def test_that_a_kept_key_is_in_one_file_that_nothing_publishes(tmp_path: Path, azurite: Azurite, secret: tuple[str, str]) -> None:
    connection_string, hidden = secret
    project = Project.new(tmp_path / "first")
    name = f"secrets{len(hidden)}"
    azurite.container(name)
    output = project.run(
        *("python", "-m", "tools.azure.remote", f"azure://{name}/path", "--store"),
        environment={"AZURE_STORAGE_CONNECTION_STRING": connection_string},
    )
    project.publish()
    output += project.share("push", "--verbose")
    output += project.run("dvc", "exp", "run", "--verbose", "--temp", "--name", "other", "--set-param", "word=other")
    output += project.share("exp", "push", "--verbose", "origin", "other")
    output += project.share("pull", "--verbose", "--force")
    project.run("dvc", "remote", "modify", "azure", "url", "azure://absent")
    output += project.share("push", "--verbose", code=1)
    output += project.run("dvc", "push", "--verbose", code=1)
    project.run("git", "add", "--all")

    assert f"'azure' is azure://{name}/path" in output
    assert "No such container: 'absent'" in output
    assert hidden not in output
    objects = subprocess.check_output(["git", "cat-file", "--batch-all-objects", "--batch"], cwd=project.folder)
    assert f"url = azure://{name}/path".encode() in objects
    assert hidden.encode() not in objects
    assert holders(project.folder, hidden) == {".dvc/config.local"}
    assert holders(tmp_path / "git", hidden) == set()
    assert project.run("git", "check-ignore", ".dvc/config.local") == ".dvc/config.local\n"
    assert oct((project.folder / ".dvc/config.local").stat().st_mode & 0o777) == "0o600"
    context = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert context[0] == "*"
    assert not [line for line in context if line.startswith("!.")]
