"""What git knows of an experiment (dvc.lock, metrics, params.yaml), as a bundle that another clone fetches from."""

from pathlib import Path

from tools.azure.repository import git
from tunepress.core.files import atomic_output

BUNDLE = "results.bundle"


def write_bundle(name: str, folder: Path) -> None:
    """Writes the experiment's commit, without the one that it is based on.

    Raises:
        InputError: git cannot.
    """
    here = Path.cwd()
    reference = git(here, "for-each-ref", "--format=%(refname)", f"refs/exps/**/{name}")
    with atomic_output(folder / BUNDLE) as partial:
        git(here, "bundle", "create", "--quiet", str(partial.resolve()), reference, "^HEAD")
    print(f"node: experiment {name} in {BUNDLE}, `make azure-fetch JOB={name}` brings it")
