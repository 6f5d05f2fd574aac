"""Two clones that share results through a container, and what becomes of them when the server does not play along."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.azure.azurite import Azurite
from tests.azure.project import Project
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, azurite: Azurite) -> Project:
    """A project whose remote is set up and committed."""
    project = Project.new(tmp_path_factory.mktemp("template") / "first", azurite)
    azurite.container("shared")
    project.set_up("azure://shared/tunepress")
    project.publish()
    return project


@pytest.fixture
def project(tmp_path: Path, template: Project) -> Project:
    """The template's copy, for one test."""
    return template.moved(tmp_path)


def test_that_two_clones_share_results(project: Project, azurite: Azurite) -> None:
    assert "43 files pushed" in project.share("push", "--run-cache")
    colleague = project.colleague(azurite)
    colleague.share("pull")
    assert colleague.made() == project.made()

    (project.folder / "params.yaml").write_text("word: two\n")
    project.run("dvc", "repro", "--quiet")
    project.publish()
    project.share("push")
    colleague.run("git", "pull", "--quiet")
    assert colleague.ran("python", "-m", "tools.azure.share", "repro", "--pull") == []
    assert colleague.made() == project.made()
    assert colleague.made()["one.txt"] == b"two"


def test_that_two_clones_share_an_experiment(project: Project, azurite: Azurite) -> None:
    project.run("dvc", "exp", "run", "--quiet", "--name", "better", "--set-param", "word=three")
    project.share("exp", "push", "origin", "better")
    colleague = project.colleague(azurite)
    colleague.share("exp", "pull", "origin", "better")
    colleague.run("dvc", "exp", "apply", "better")
    assert colleague.made()["one.txt"] == b"three"
    assert colleague.made() == project.made()


def test_that_an_absent_container_is_named_on_pull_too(project: Project, azurite: Azurite) -> None:
    project.run("dvc", "remote", "modify", "azure", "url", "azure://absent/tunepress")
    for command in (["push"], ["pull"], ["repro", "--pull"]):
        output = project.share(*command, code=1)
        assert output.startswith(
            f"dvc {' '.join(command)}: account tunepress has no container 'absent': fix the URL, or create it"
        )


def test_that_the_remote_that_a_command_names_is_asked(project: Project, azurite: Azurite) -> None:
    project.run("dvc", "remote", "add", "other", "azure://other/path")
    project.run("dvc", "remote", "add", "here", str(project.folder.parent / "here"))
    assert "has no container 'other'" in project.share("push", "--remote", "other", code=1)
    assert "the DVC remote 'here' is not in Azure: use `dvc` itself" in project.share("push", "-r", "here", code=1)
    assert "remote 'none' doesn't exist" in project.share("push", "-rnone", code=1)
    project.run("dvc", "remote", "default", "--unset")
    assert "`make remote-azure URL=azure://container/path` sets one up" in project.share("pull", code=1)


def test_that_a_dead_server_is_said_at_once(project: Project, azurite: Azurite) -> None:
    azurite.stop()
    try:
        started = time.monotonic()
        assert f"127.0.0.1:{azurite.port}/tunepress does not answer as expected" in project.share("pull", code=1)
        assert time.monotonic() - started < 60  # on a busy machine; DVC itself takes 84 and more
    finally:
        azurite.start()


def interrupted(project: Project, azurite: Azurite, *command: str, when: Callable[[], bool]) -> str:
    """What a transfer says whose server ends once `when` is true."""
    transfer = subprocess.Popen(
        [sys.executable, "-m", "tools.azure.share", "--patience", "3", *command],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not when():
        assert transfer.poll() is None, transfer.communicate()[0]
        time.sleep(0.02)
    azurite.stop()
    output: str = transfer.communicate(timeout=60)[0]
    assert transfer.returncode == 1, output
    return output


def test_that_a_second_push_completes_what_a_dying_server_cut_short(project: Project, azurite: Azurite) -> None:
    container = azurite.container("dying")
    project.set_up("azure://dying/tunepress")
    (project.folder / "size.txt").write_text("200000\n")  # 40 files of 0.8 MB
    project.run("dvc", "repro", "--quiet")
    project.publish()

    def there() -> list[str]:
        return list(container.list_blob_names())

    output = interrupted(project, azurite, "push", "--jobs", "2", when=lambda: len(there()) >= 3)
    assert "stopped after 3 s; run it again to resume the transfer" in output
    azurite.start()
    moved = set(there())
    assert 3 <= len(moved) < 42
    project.share("push")
    assert moved < set(there())
    assert len(there()) == 42

    colleague = project.colleague(azurite)
    cache = colleague.folder / ".dvc/cache/files/md5"
    interrupted(colleague, azurite, "pull", "--jobs", "2", when=lambda: len(list(cache.glob("*/*"))) >= 2)
    azurite.start()
    colleague.share("pull")
    assert colleague.made() == project.made()


def test_that_make_hands_its_words_over(project: Project, azurite: Azurite) -> None:
    venv = Path(sys.executable).parent.parent
    make = ("make", "--no-print-directory", "-f", str(ROOT / "Makefile"), f"VENV={venv}", "--old-file", f"{venv}/.azure")
    azurite.container("made")
    output = project.run(*make, "remote-azure", "URL=azure://made/path", "ACCOUNT=tunepress", "STORE=1")
    assert "the DVC remote 'azure' is azure://made/path in account tunepress" in output
    assert "which is now stored in .dvc/config.local" in output
    assert project.run(*make, "push", "ARGS=many --jobs 2") == "41 files pushed\n"
    assert "Everything is up to date" in project.run(*make, "pull", "ARGS=many")
    assert "has no container 'none'" in project.run(*make, "remote-azure", "URL=azure://none", code=2)
