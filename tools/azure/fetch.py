"""Brings the result of a job here: `make azure-fetch JOB=smoke-1127-201144-9f3c`.

It waits for the job, takes its experiment over from its output into the working tree, and pulls its model from the DVC remote.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.azure.node.results import BUNDLE
from tools.azure.repository import git
from tools.azure.share import share
from tools.azure.submit.job import RESULTS
from tools.azure.watch import watch
from tools.doctor import dvc_project
from tunepress.core.errors import InputError
from tunepress.remote.workspace import Workspace, connect, find_workspace

OUTPUTS = "named-outputs"  # where the SDK puts them


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.azure.fetch", description=__doc__.partition(":")[0])
    parser.add_argument("job", help="its name, which `make azure-submit` has said")
    for name in ("subscription-id", "resource-group", "workspace-name"):
        parser.add_argument(f"--{name}", help="of the workspace (default: the environment's or config.json's)")
    given = parser.parse_args()
    try:
        if not given.job:
            raise InputError("JOB= is the name that `make azure-submit` has said, such as smoke-1127-201144-9f3c")
        refuse_changes()
        workspace = find_workspace(given.subscription_id, given.resource_group, given.workspace_name)
        sys.exit(fetch(workspace, given.job))
    except InputError as error:
        sys.exit(f"azure-fetch: {error}")
    except KeyboardInterrupt:
        sys.exit("azure-fetch: interrupted")


def refuse_changes() -> None:
    """Raises InputError where applying the experiment would mix it with changes that are nowhere else."""
    if changed := git(Path(), "diff", "--name-only", "HEAD").splitlines():
        raise InputError(
            f"{changed[0]}: changed since the last commit, and the job's result would go over it; commit, or `git stash`"
        )


def fetch(workspace: Workspace, job: str) -> int:
    """Waits for a job and brings its experiment and its model; the exit status."""
    with TemporaryDirectory() as scratch, connect(workspace) as client:
        if code := watch(client, job, cancel_on_interrupt=False):
            return code
        client.jobs.download(job, download_path=scratch, output_name=RESULTS)
        take_over(Path(scratch) / OUTPUTS / RESULTS / BUNDLE, job)
    return lay_down(job)


def take_over(bundle: Path, job: str) -> None:
    """Has git know the job's experiment.

    Raises:
        InputError: the job left none, or the commit that it is based on is not in this repository.
    """
    if not bundle.exists():
        raise InputError(f"job {job}: no {BUNDLE} among its outputs; did `make azure-submit` start it?")
    try:
        git(Path(), "fetch", "--quiet", str(bundle), "refs/exps/*:refs/exps/*")
    except InputError as error:
        raise InputError(
            f"job {job}: the commit that it ran is not in this repository; `git fetch` it, and the same again ({error})"
        ) from error


def lay_down(job: str) -> int:
    """Puts the experiment into the working tree, where that is at the commit that the job ran; the exit status."""
    reference = git(Path(), "for-each-ref", "--format=%(refname)", f"refs/exps/**/{job}")
    based_on = git(Path(), "rev-parse", f"{reference}~")
    if based_on != git(Path(), "rev-parse", "HEAD"):
        print(f"azure-fetch: experiment {job} is of another commit: `git switch --detach {based_on[:9]}`, and the same again")
        return 0
    refuse_changes()  # there may be some since the job was waited for
    # `dvc exp apply` would check out too, and fail for what is still to be pulled
    git(Path(), "restore", f"--source={reference}", "--worktree", ".")
    if code := pull():
        return code
    print(f"azure-fetch: experiment {job} is in the working tree, with its model in models/onnx")
    return 0


def pull() -> int:
    """Pulls from the default remote, for no longer than `make pull` would where that is in Azure; the exit status."""
    remote = dvc_project.default_remote()
    if remote and dvc_project.scheme(remote) == "azure":
        return share(["pull"])
    return subprocess.run([sys.executable, "-m", "dvc", "pull"], check=False).returncode


if __name__ == "__main__":
    main()
