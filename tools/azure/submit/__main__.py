"""Runs an experiment on Azure ML: `make azure-submit EXPERIMENT=smoke ARGS="compute=gpu-cluster"`."""

import argparse
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from azure.ai.ml import load_job

from tools.azure.repository import git
from tools.azure.submit import job as jobs
from tools.azure.submit import project, settings
from tools.azure.submit.settings import Job
from tools.azure.submit.validation import validate
from tools.azure.watch import watch
from tunepress.config.params import Params
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output
from tunepress.core.params import CONF, compose_typed
from tunepress.remote.workspace import Workspace, connect, find_workspace

FOLDER = Path(".azure_job")
KUBERNETES = "kubernetes"  # the type of such a compute in Azure ML
REPOSITORY = (
    "AZUREML_GIT_REPOSITORY_URI"  # the repository's address, which the SDK sends to Azure ML instead of that of the remote
)


def main() -> None:
    arguments = parser().parse_intermixed_args()  # settings and options in any order
    try:
        sys.exit(submit(arguments))
    except InputError as error:
        sys.exit(f"azure-submit: {error}")
    except KeyboardInterrupt:
        sys.exit("azure-submit: interrupted")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.azure.submit", description=__doc__.partition(":")[0])
    parser.add_argument("settings", nargs="*", help=f"settings of the job, such as compute=gpu-cluster; see {settings.FILE}")
    parser.add_argument("--experiment", help="experiment of conf/experiment")
    parser.add_argument("-S", "--set-param", action="append", default=[], help="parameter, as in `dvc exp run`")
    parser.add_argument("--dry-run", action="store_true", help=f"write and check {FOLDER}/{jobs.FILE} without contacting Azure")
    return parser


def submit(arguments: argparse.Namespace) -> int:
    """Writes, checks and submits a job; returns the exit status."""
    job = settings.load(arguments.settings)
    workspace = None if arguments.dry_run else find_workspace(job.subscription_id, job.resource_group, job.workspace_name)
    parameters = [f"+experiment={arguments.experiment}"] if arguments.experiment else []
    parameters += arguments.set_param
    check_parameters(parameters, job)
    untracked = project.untracked_files(Path())
    refuse_untracked(parameters, untracked)
    name = jobs.new_name(arguments.experiment)
    with atomic_output(FOLDER) as partial:
        commit = jobs.write(job, project.default_remote(Path()), parameters, name, partial)
        validate(partial / jobs.FILE)
    if untracked:
        print(f"azure-submit: not in git, so the job does not have: {project.shorten(untracked)}")
    nodes = f"{job.instance_count} node{'s' if job.instance_count > 1 else ''}"
    print(f"azure-submit: job {name} runs commit {commit[:9]} on {nodes} of {job.compute}, {FOLDER / jobs.FILE}", flush=True)
    return run(workspace, job) if workspace else 0


def check_parameters(parameters: list[str], job: Job) -> None:
    """Composes the configuration as the node will.

    Raises:
        InputError: an unknown experiment or key, an invalid value, or one that several nodes do not support.
    """
    bound = [re.sub(r"\$\{\{.*?\}\}", "bound", parameter) for parameter in parameters]
    composed = compose_typed(Params, [*bound, f"environment={job.environment.lock}"])
    if job.instance_count > 1 and composed.train.load_best_model_at_end:
        raise InputError("train.load_best_model_at_end: only the first node has the best checkpoint; set it to false")


def refuse_untracked(parameters: list[str], untracked: list[str]) -> None:
    """Raises InputError if a parameter chooses a file of conf/ that is not in git."""
    for parameter in parameters:
        group, _, chosen = parameter.lstrip("+").partition("=")
        if (file := f"{CONF}/{group}/{chosen}.yaml") in untracked:
            raise InputError(f"{file}: is not in git, and the job runs the commit; `git add` and commit it")


def run(workspace: Workspace, job: Job) -> int:
    """Submits the job and watches it until it ends.

    Raises:
        InputError: Azure refuses it.
    """
    hide_credentials()
    with connect(workspace) as client:
        compute_type = client.compute.get(str(job.compute)).type
        if (str(compute_type).lower() == KUBERNETES) != job.azure_arc:
            raise InputError(f"compute {job.compute} has type {compute_type}; set azure_arc={str(not job.azure_arc).lower()}")
        submitted = client.jobs.create_or_update(load_job(FOLDER / jobs.FILE))
        return watch(client, str(submitted.name), job.cancel_on_interrupt)


def hide_credentials() -> None:
    """Makes the SDK send the address of git's remote without a user name and password."""
    with suppress(InputError):  # there is no remote
        address = git(Path(), "ls-remote", "--get-url")
        os.environ.setdefault(REPOSITORY, re.sub(r"(?<=://)[^/]*@", "", address))


if __name__ == "__main__":
    main()
