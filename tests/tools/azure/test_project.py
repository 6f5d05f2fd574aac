"""What a job takes from the project: the snapshot of its code and the DVC remote."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tools.azure.repository import git
from tools.azure.submit.project import SNAPSHOT, UNPACK, Remote, default_remote, shorten, untracked_files, write_snapshot
from tunepress.core.errors import InputError

SECRET = "c2VjcmV0LW9mLXRoZS10ZXN0cw=="


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a history, a link, a program, and what git does not know: data, a model, a cache, credentials."""
    for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "project of mine"
    folder.mkdir()
    write(folder, "stages/train/stage.py", "print('old')\n")
    write(folder, ".gitignore", "/models/\n/data/\n/config.json\n")
    write(folder, ".dvc/config", "[core]\n    remote = azure\n['remote \"azure\"']\n    url = azure://dvc/store\n")
    write(folder, ".dvc/.gitignore", "/config.local\n/tmp\n/cache\n")
    (folder / "program").write_text("#!/bin/sh\n")
    (folder / "program").chmod(0o755)
    (folder / "link").symlink_to("stages/train/stage.py")
    git(folder, "init", "--quiet")
    git(folder, "remote", "add", "origin", f"https://me:{SECRET}@git.example.com/project.git")
    commit(folder)
    write(folder, "stages/train/stage.py", "print('new')\n")
    commit(folder)
    write(folder, "models/base/model.safetensors", "weights")
    write(folder, "data/rows.jsonl", "{}")
    write(folder, ".dvc/cache/files/md5/00", "cached")
    write(folder, ".dvc/config.local", f"['remote \"azure\"']\n    account_name = mine\n    account_key = {SECRET}\n")
    write(folder, "config.json", "{}")
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "nowhere"))
    return folder


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "-m", "state")


def unpacked(project: Path, folder: Path) -> Path:
    """What a node makes of a project's snapshot."""
    write_snapshot(project, folder)
    subprocess.run(["bash", "-c", UNPACK], cwd=folder, check=True)
    return folder / "project"


# the snapshot


def test_a_node_has_the_files_of_the_commit_as_they_are_here(project: Path, tmp_path: Path) -> None:
    copy = unpacked(project, tmp_path / "code")
    assert git(copy, "ls-files") == git(project, "ls-files")
    assert (copy / "stages/train/stage.py").read_text() == "print('new')\n"
    assert os.access(copy / "program", os.X_OK)
    assert (copy / "link").is_symlink()
    assert git(copy, "rev-parse", "HEAD") == git(project, "rev-parse", "HEAD")
    assert git(copy, "status", "--porcelain") == ""


def test_a_node_has_no_data_no_history_no_credentials_and_no_path_of_this_machine(project: Path, tmp_path: Path) -> None:
    copy = unpacked(project, tmp_path / "code")
    names = {path.relative_to(copy).parts[0] for path in copy.rglob("*")}
    assert names == {".git", ".gitignore", ".dvc", "stages", "program", "link"}
    assert {path.name for path in (copy / ".dvc").iterdir()} == {"config", ".gitignore"}
    assert git(copy, "rev-list", "--count", "HEAD") == "1"
    assert git(copy, "remote") == ""
    for text in (SECRET, str(project.parent), "project of mine"):
        search = subprocess.run(["grep", "-r", "-F", "-l", text, str(copy)], capture_output=True, text=True, check=False)
        assert search.stdout == ""


def test_the_archive_names_no_user_of_this_machine(project: Path, tmp_path: Path) -> None:
    write_snapshot(project, tmp_path)
    with tarfile.open(tmp_path / SNAPSHOT) as archive:
        assert {(member.uid, member.gid, member.uname, member.gname) for member in archive} == {(0, 0, "", "")}


def test_a_changed_file_is_refused_and_named(project: Path, tmp_path: Path) -> None:
    write(project, "stages/train/stage.py", "print('newer')\n")
    with pytest.raises(InputError, match=r"^stages/train/stage\.py: changed since the last commit"):
        write_snapshot(project, tmp_path / "code")
    assert not (tmp_path / "code").exists()


def test_a_file_that_git_does_not_know_is_listed(project: Path) -> None:
    assert untracked_files(project) == []
    write(project, "conf/experiment/mine.yaml", "")
    assert untracked_files(project) == ["conf/experiment/mine.yaml"]
    assert shorten(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_a_folder_without_git_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(InputError, match="git rev-parse: fatal: not a git repository"):
        write_snapshot(tmp_path, tmp_path / "code")


# the DVC remote


def test_a_remote_goes_without_its_credentials(project: Path) -> None:
    assert default_remote(project) == Remote("azure", {"url": "azure://dvc/store", "account_name": "mine"})


def test_the_account_is_found_where_dvc_finds_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = f"DefaultEndpointsProtocol=https;AccountName=other;AccountKey={SECRET}"
    (project / ".dvc/config.local").unlink()
    with pytest.raises(InputError, match="no storage account; `dvc remote modify azure account_name"):
        default_remote(project)
    write(project, ".dvc/config.local", f"['remote \"azure\"']\n    connection_string = {keys}\n")
    assert default_remote(project).options == {"url": "azure://dvc/store", "account_name": "other"}
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "third")
    assert default_remote(project).options["account_name"] == "third"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("../store", "remote azure: its folder is on this machine"),
        ("ssh://me:password@host/store", "its url contains a credential"),
        ("https://account.blob.core.windows.net/dvc?sv=1&sig=abc", "its url contains a credential"),
        ("https://host/store?access_token=abc", "its url contains a credential"),
        ("https://token@host/store", "its url contains a credential"),
    ],
)
def test_a_remote_that_no_node_may_have_is_refused(url: str, message: str, project: Path) -> None:
    write(project, ".dvc/config.local", f"['remote \"azure\"']\n    url = {url}\n")
    with pytest.raises(InputError, match=message):
        default_remote(project)


def test_no_remote_is_refused_with_the_command_that_adds_one(project: Path) -> None:
    write(project, ".dvc/config", "")
    (project / ".dvc/config.local").unlink()
    with pytest.raises(InputError, match=r"no default DVC remote.*dvc remote add --default"):
        default_remote(project)


def test_a_secret_in_git_is_refused(project: Path) -> None:
    write(project, ".dvc/config", f"['remote \"azure\"']\n    url = azure://dvc/store\n    account_key = {SECRET}\n")
    with pytest.raises(InputError, match=r"^\.dvc/config is in git and has remote\.azure\.account_key") as refused:
        default_remote(project)
    assert SECRET not in str(refused.value)


def test_a_configuration_that_dvc_cannot_read_is_one_line(project: Path) -> None:
    write(project, ".dvc/config", "url = azure://dvc/store\n[core]\n    remote = a\n    remote = b\n")
    with pytest.raises(InputError, match=r"^DVC's configuration: ") as refused:
        default_remote(project)
    assert "\n" not in str(refused.value)
