"""What a job needs of the project: the DVC remote for its results, and a snapshot of its code.

Azure ML stores a code folder as single blobs, which lose empty folders, links, modes and the git repository. The snapshot is
therefore the checked-out commit as a git repository in one file, without history, remotes, settings and untracked files.
"""

import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qsl, urlsplit

from dvc.config import Config, ConfigError

from tools.azure.container import refuse_tracked_secrets
from tools.azure.repository import git
from tunepress.core.errors import InputError, one_line
from tunepress.core.files import atomic_output
from tunepress.remote.addresses import SECRET

PASSED = ("url", "account_name", "endpointurl", "region")  # options of DVC's remotes that are not secrets
WEB = {"http", "https", "webdav", "webdavs"}  # some of these services take a token as the user name
SCHEME = re.compile(r"[a-z0-9]+://")
REACHABLE = "configure one that a node can reach, such as azure://container/path (`dvc remote add --default NAME URL`)"
SNAPSHOT = "project.tar"
# As root, tar would give the files to the owner's user id on this machine, and git would refuse them.
UNPACK = f"tar --extract --no-same-owner --file {SNAPSHOT} && cd project && git reset --quiet --hard"
MAX_NAMES = 5  # in a message


@dataclass(frozen=True)
class Remote:
    """A DVC remote: its name, and the options that are not secrets, including `url`."""

    name: str
    options: dict[str, str]


def default_remote(root: Path) -> Remote:
    """Returns the project's default remote.

    Raises:
        InputError: there is none, a node could not reach it, or git has a secret of it.
    """
    try:
        config = Config(str(root / ".dvc"))
    except ConfigError as error:
        raise InputError(f"DVC's configuration: {one_line(error)}") from error
    refuse_tracked_secrets(config)
    name = config["core"].get("remote")
    if not name:
        raise InputError(f"no default DVC remote for the job to push its model to; {REACHABLE}")
    configured = config["remote"].get(name)
    if not configured:
        raise InputError(f"DVC remote {name}: core.remote names it, but it does not exist; {REACHABLE}")
    options = {key: str(configured[key]) for key in PASSED if configured.get(key)}
    check_url(name, options["url"])
    if options["url"].startswith("azure://"):
        options["account_name"] = options.get("account_name") or storage_account(
            name, str(configured.get("connection_string", ""))
        )
    return Remote(name, options)


def check_url(name: str, url: str) -> None:
    """Raises InputError if a node cannot reach the address, or if it contains a credential."""
    if not SCHEME.match(url):
        raise InputError(f"DVC remote {name}: its folder is on this machine; {REACHABLE}")
    parts = urlsplit(url)
    user = parts.username if parts.scheme in WEB else None
    if user or parts.password or any(SECRET.search(name) for name, _ in parse_qsl(parts.query)):
        raise InputError(f"DVC remote {name}: its url contains a credential; remove it, and set the credential with --local")


def storage_account(name: str, connection_string: str) -> str:
    """Returns the storage account of a remote without `account_name`, from where DVC would take it.

    Raises:
        InputError: it is not configured anywhere.
    """
    connection_string = connection_string or os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    match = re.search(r"(?:^|;)AccountName=([^;]+)", connection_string)
    account = os.environ.get("AZURE_STORAGE_ACCOUNT") or (match and match[1])
    if not account:
        raise InputError(f"DVC remote {name}: no storage account; `dvc remote modify {name} account_name ACCOUNT`")
    return account


def write_snapshot(root: Path, folder: Path) -> str:
    """Writes the snapshot of a project into the code folder of a job and returns its commit.

    Raises:
        InputError: there is no git repository or no commit, or a tracked file has changed since.
    """
    commit = git(root, "rev-parse", "HEAD")
    if changed := git(root, "diff", "--name-only", "HEAD").splitlines():
        raise InputError(f"{shorten(changed)}: changed since the last commit, and a job runs the commit; commit, or `git stash`")
    with TemporaryDirectory() as scratch:
        project = Path(scratch) / "project"
        git(root, "init", "--quiet", "--template=", "--initial-branch=main", str(project))
        git(project, "fetch", "--quiet", "--depth=1", "--no-tags", root.resolve().as_uri(), "HEAD")
        git(project, "-c", "core.logAllRefUpdates=false", "update-ref", "refs/heads/main", commit)
        (project / ".git/FETCH_HEAD").unlink()  # it contains a path of this machine
        with atomic_output(folder / SNAPSHOT) as partial, tarfile.open(partial, "w") as archive:
            archive.add(project, "project", filter=without_owner)
    return commit


def untracked_files(root: Path) -> list[str]:
    """The files that are neither tracked nor ignored; a job does not have them."""
    return git(root, "ls-files", "--others", "--exclude-standard").splitlines()


def shorten(names: list[str]) -> str:
    """The first names, and the number of the others."""
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
