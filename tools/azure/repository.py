"""The project's git repository, here and on a node, and the bundle that carries an experiment from the one to the other."""

import subprocess
from pathlib import Path

from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output

BUNDLE = "results.bundle"  # dvc.lock, metrics and params.yaml of a job's experiment


def git(folder: Path, *arguments: str) -> str:
    """Runs a git command in a folder and returns its output.

    Raises:
        InputError: the command fails.
    """
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"git {arguments[0]}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    return done.stdout.rstrip("\n")


def experiment_ref(name: str) -> str:
    return git(Path(), "for-each-ref", "--format=%(refname)", f"refs/exps/**/{name}")


def write_bundle(name: str, folder: Path) -> None:
    """Writes the commit of an experiment to a bundle, without the commit that it is based on.

    Raises:
        InputError: git fails.
    """
    with atomic_output(folder / BUNDLE) as partial:
        git(Path(), "bundle", "create", "--quiet", str(partial.resolve()), experiment_ref(name), "^HEAD")
    print(f"node: experiment {name} is in {BUNDLE}; `make azure-fetch JOB={name}` downloads it")


def read_bundle(bundle: Path, job: str) -> None:
    """Adds the experiment of a job to this repository.

    Raises:
        InputError: the job wrote no bundle, or the commit that it is based on is not in this repository.
    """
    if not bundle.exists():
        raise InputError(f"job {job}: no {BUNDLE} in its outputs; did `make azure-submit` start it?")
    try:
        git(Path(), "fetch", "--quiet", str(bundle), "refs/exps/*:refs/exps/*")
    except InputError as error:
        reason = f"the commit that it ran is not in this repository; `git fetch` it and try again ({error})"
        raise InputError(f"job {job}: {reason}") from error
