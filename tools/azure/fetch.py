"""Downloads the result of a job: `make azure-fetch JOB=smoke-1127-201144-9f3c`.

It waits for the job, applies the experiment from its output to the working tree, and pulls its model from the DVC remote.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from dvc.config import Config

from tools.azure.repository import BUNDLE, experiment_ref, git, read_bundle
from tools.azure.share import share
from tools.azure.submit.job import RESULTS
from tools.azure.watch import watch
from tunepress.core.errors import InputError
from tunepress.remote.workspace import Workspace, connect, find_workspace

OUTPUTS = "named-outputs"  # folder to which the SDK downloads outputs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.azure.fetch", description=__doc__.partition(":")[0])
    parser.add_argument("job", help="name of the job, as printed by `make azure-submit`")
    for name in ("subscription-id", "resource-group", "workspace-name"):
        parser.add_argument(f"--{name}", help="of the workspace (default: from the environment or config.json)")
    arguments = parser.parse_args()
    try:
        if not arguments.job:
            raise InputError("JOB= must be the name that `make azure-submit` printed, such as smoke-1127-201144-9f3c")
        refuse_changes()
        workspace = find_workspace(arguments.subscription_id, arguments.resource_group, arguments.workspace_name)
        sys.exit(fetch(workspace, arguments.job))
    except InputError as error:
        sys.exit(f"azure-fetch: {error}")
    except KeyboardInterrupt:
        sys.exit("azure-fetch: interrupted")


def refuse_changes() -> None:
    """Raises InputError if the experiment would overwrite uncommitted changes."""
    if changed := git(Path(), "diff", "--name-only", "HEAD").splitlines():
        raise InputError(
            f"{changed[0]}: changed since the last commit, and the job's result would overwrite it; commit, or `git stash`"
        )


def fetch(workspace: Workspace, job: str) -> int:
    """Waits for a job and downloads its experiment and its model; returns the exit status."""
    with TemporaryDirectory() as scratch, connect(workspace) as client:
        if code := watch(client, job, cancel_on_interrupt=False):
            return code
        client.jobs.download(job, download_path=scratch, output_name=RESULTS)
        read_bundle(Path(scratch) / OUTPUTS / RESULTS / BUNDLE, job)
    return apply(job)


def apply(job: str) -> int:
    """Applies the experiment to the working tree if that is at the commit that the job ran; returns the exit status."""
    reference = experiment_ref(job)
    base = git(Path(), "rev-parse", f"{reference}~")
    if base != git(Path(), "rev-parse", "HEAD"):
        print(f"azure-fetch: experiment {job} is based on another commit: `git switch --detach {base[:9]}` and try again")
        return 0
    refuse_changes()  # there may be some since the job was awaited
    # `dvc exp apply` would also check out, and fail for files that are still to be pulled
    git(Path(), "restore", f"--source={reference}", "--worktree", ".")
    if code := pull():
        return code
    print(f"azure-fetch: experiment {job} is in the working tree, with its model in models/onnx")
    return 0


def pull() -> int:
    """Pulls from the default remote, with the time limit of `make pull` if it is in Azure; returns the exit status."""
    config = Config.from_cwd()
    remote = config["remote"].get(config["core"].get("remote"), {})
    if str(remote.get("url", "")).startswith("azure://"):
        return share(["pull"])
    return subprocess.run([sys.executable, "-m", "dvc", "pull"], check=False).returncode


if __name__ == "__main__":
    main()
