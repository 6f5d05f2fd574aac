"""Runs an experiment on Azure ML's computers: `make azure-submit EXPERIMENT=smoke ARGS="compute=gpu-cluster"`."""

import argparse
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from azure.ai.ml import load_job
from omegaconf import OmegaConf

from tools.azure.repository import git
from tools.azure.submit import job as jobs
from tools.azure.submit import remote, settings, snapshot
from tools.azure.submit.settings import Job
from tools.azure.submit.validation import validate
from tools.azure.watch import watch
from tools.cli.params import compose
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output
from tunepress.core.params import CONF
from tunepress.remote.workspace import Workspace, connect, find_workspace

FOLDER = Path(".azure_job")
KUBERNETES = "kubernetes"  # what Azure ML calls the type of such a compute
REPOSITORY = "AZUREML_GIT_REPOSITORY_URI"  # what the SDK tells Azure ML of the repository, in place of its remote's address


def main() -> None:
    """The command line."""
    arguments = parser().parse_intermixed_args()  # settings and options in any order
    try:
        sys.exit(submit(arguments))
    except InputError as error:
        sys.exit(f"azure-submit: {error}")
    except KeyboardInterrupt:
        sys.exit("azure-submit: interrupted")


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m tools.azure.submit", description=__doc__.partition(":")[0])
    parser.add_argument(
        "settings", nargs="*", help=f"settings of the job, such as compute=gpu-cluster; {settings.FILE} has them all"
    )
    parser.add_argument("--experiment", help="recipe of conf/experiment")
    parser.add_argument("-S", "--set-param", action="append", default=[], help="parameter, as `dvc exp run` takes it")
    parser.add_argument("--dry-run", action="store_true", help=f"write and check {FOLDER}/{jobs.FILE}, and ask Azure nothing")
    return parser


def submit(arguments: argparse.Namespace) -> int:
    """Writes the job, checks it, and has Azure ML run it; the exit status."""
    job = settings.load(arguments.settings)
    workspace = None if arguments.dry_run else find_workspace(job.subscription_id, job.resource_group, job.workspace_name)
    parameters = [f"+experiment={arguments.experiment}"] if arguments.experiment else []
    parameters += arguments.set_param
    check_parameters(parameters, job)
    left = snapshot.unknown(Path())
    refuse_left(parameters, left)
    name = jobs.new_name(arguments.experiment)
    with atomic_output(FOLDER) as partial:
        commit = jobs.write(job, remote.find(Path()), parameters, name, partial)
        validate(partial / jobs.FILE)
    if left:
        print(f"azure-submit: not in git, so the job goes without: {snapshot.listed(left)}")
    nodes = f"{job.instance_count} node{'s' if job.instance_count > 1 else ''}"
    print(f"azure-submit: job {name} runs commit {commit[:9]} on {nodes} of {job.compute}, {FOLDER / jobs.FILE}", flush=True)
    return run(workspace, job) if workspace else 0


def check_parameters(parameters: list[str], job: Job) -> None:
    """Composes the configuration as the node will.

    Raises:
        InputError: a recipe or a key that there is not, a wrong value, or one that several nodes cannot have.
    """
    bound = [re.sub(r"\$\{\{.*?\}\}", "bound", parameter) for parameter in parameters]
    composed = OmegaConf.create(compose([*bound, f"environment={job.environment.lock}"]))
    if job.instance_count > 1 and composed.train.load_best_model_at_end:
        raise InputError("train.load_best_model_at_end: the best checkpoint lies on the first node alone; set it to false")


def refuse_left(parameters: list[str], left: list[str]) -> None:
    """Raises InputError where a parameter chooses a file of conf/ that the job goes without."""
    for parameter in parameters:
        group, _, chosen = parameter.lstrip("+").partition("=")
        if (file := f"{CONF}/{group}/{chosen}.yaml") in left:
            raise InputError(f"{file}: git does not know it, and the job runs the commit; `git add` it, and commit")


def run(workspace: Workspace, job: Job) -> int:
    """Submits what is written and watches it until it ends.

    Raises:
        InputError: Azure refuses it.
    """
    hide_credentials()
    with connect(workspace) as client:
        kind = client.compute.get(str(job.compute)).type
        if (str(kind).lower() == KUBERNETES) != job.azure_arc:
            raise InputError(f"compute {job.compute} is of type {kind}; set azure_arc={str(not job.azure_arc).lower()}")
        submitted = client.jobs.create_or_update(load_job(FOLDER / jobs.FILE))
        return watch(client, str(submitted.name), job.cancel_on_interrupt)


def hide_credentials() -> None:
    """Has the SDK tell Azure ML the address of git's remote without a user's name and password."""
    with suppress(InputError):  # there is no remote
        address = git(Path(), "ls-remote", "--get-url")
        os.environ.setdefault(REPOSITORY, re.sub(r"(?<=://)[^/]*@", "", address))


if __name__ == "__main__":
    main()
