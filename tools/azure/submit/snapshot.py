"""The snapshot of a job's code: the commit that is checked out, as a git repository in one file.

Azure ML carries a code folder as single blobs, which lose empty folders, links and modes, and git's repository with them.
It has one commit and no history, no remotes, no settings and nothing that git does not know: no data, models or caches.
"""

import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.azure.repository import git
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output

FILE = "project.tar"
# As root, tar would give the files to whoever has the archive's user number, and git would refuse them.
UNPACK = f"tar --extract --no-same-owner --file {FILE} && cd project && git reset --quiet --hard"
NAMED = 5  # of many files


def write(root: Path, folder: Path) -> str:
    """Writes the snapshot into a folder and returns the commit that it is of.

    Args:
        root: of the project.
        folder: which the job's code is.

    Raises:
        InputError: no git repository or no commit, or a file that git knows has changed since.
    """
    commit = git(root, "rev-parse", "HEAD")
    if changed := git(root, "diff", "--name-only", "HEAD").splitlines():
        raise InputError(f"{listed(changed)}: changed since the last commit, and a job runs the commit; commit, or `git stash`")
    with TemporaryDirectory() as scratch:
        project = Path(scratch) / "project"
        git(root, "init", "--quiet", "--template=", "--initial-branch=main", str(project))
        git(project, "fetch", "--quiet", "--depth=1", "--no-tags", root.resolve().as_uri(), "HEAD")
        git(project, "-c", "core.logAllRefUpdates=false", "update-ref", "refs/heads/main", commit)
        (project / ".git/FETCH_HEAD").unlink()  # it names this machine's folder
        with atomic_output(folder / FILE) as partial, tarfile.open(partial, "w") as archive:
            archive.add(project, "project", filter=of_nobody)
    return commit


def unknown(root: Path) -> list[str]:
    """The files that git does not know and does not ignore: a job goes without them."""
    return git(root, "ls-files", "--others", "--exclude-standard").splitlines()


def listed(names: list[str]) -> str:
    """The first names, and how many there are besides."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def of_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member of the archive without the name and number of its owner here."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
