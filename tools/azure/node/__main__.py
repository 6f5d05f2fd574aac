"""Runs an experiment in a job: `dvc exp run`, `dvc push`, and a git bundle of the experiment as the job's output.

    python -m tools.azure.node --name smoke-1 --lock cuda13 --remote NAME url=azure://container/path --results FOLDER ...

tools.azure.submit writes this command. With several nodes, the first one does all this; the others prepare the same data, to the
byte, and take part in the training.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tools.azure.node.key_vault import hugging_face_token
from tools.azure.node.setup import add_remote, is_first_node, link_input, torchrun_environment
from tools.azure.repository import write_bundle
from tunepress.core.errors import InputError

PUSHES = 3
AUTHOR = {"NAME": "tunepress", "EMAIL": "tunepress@localhost"}  # of the experiment's commit


def main() -> None:
    arguments = parser().parse_args()
    try:
        for mounted, place in arguments.input:
            link_input(mounted, place)
        variables = environment(arguments, os.environ)
        add_remote(arguments.remote[0], arguments.remote[1:])
        code = lead(arguments, variables) if is_first_node(os.environ) else follow(arguments, variables)
    except InputError as error:
        sys.exit(f"node: {error}")
    sys.exit(code)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.azure.node", description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="name of the job and of the experiment")
    parser.add_argument("--lock", required=True, help="installed environment of conf/environment")
    parser.add_argument("-S", "--set-param", action="append", default=[], help="parameter, as in `dvc exp run`")
    parser.add_argument("--input", nargs=2, action="append", default=[], metavar=("MOUNTED", "PLACE"), help="input of the job")
    parser.add_argument("--remote", nargs="+", required=True, metavar=("NAME", "OPTION=VALUE"), help="default DVC remote")
    parser.add_argument("--results", type=Path, required=True, help="folder for the bundle of the experiment")
    parser.add_argument("--keyvault-name", help="Key Vault with the Hugging Face token")
    parser.add_argument("--client-id", help="managed identity to log in with, if the node has several")
    return parser


def environment(arguments: argparse.Namespace, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of the commands: the git author, the other nodes, the identity and the Hugging Face token."""
    variables = torchrun_environment(inherited)
    variables |= {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in AUTHOR.items()}
    variables["TUNEPRESS_LOCK"] = f"requirements/{arguments.lock}.txt"
    # Azure ML names the identity of a compute; azure-identity requests the only one unless AZURE_CLIENT_ID names one.
    if identity := arguments.client_id or inherited.get("DEFAULT_IDENTITY_CLIENT_ID"):
        os.environ["AZURE_CLIENT_ID"] = variables["AZURE_CLIENT_ID"] = identity
    if arguments.keyvault_name:
        variables["HF_TOKEN"] = hugging_face_token(f"https://{arguments.keyvault_name}.vault.azure.net")
    return variables


def lead(arguments: argparse.Namespace, variables: dict[str, str]) -> int:
    """Runs the experiment, pushes its model and writes its bundle; returns the exit status of the step that fails."""
    run = ["dvc", "exp", "run", "--name", arguments.name, *settings(arguments)]
    if code := python(["tools.doctor.check_image"], variables) or python(run, variables) or push(variables):
        return code
    write_bundle(arguments.name, arguments.results)
    python(["tools.cli.results"], variables)  # fails if a bound is broken, which does not fail an experiment
    return 0


def push(variables: dict[str, str]) -> int:
    """Pushes the model, and retries what a broken connection has left; returns the exit status."""
    return next((0 for _ in range(PUSHES) if not python(["dvc", "push"], variables)), 1)


def follow(arguments: argparse.Namespace, variables: dict[str, str]) -> int:
    """Prepares the data and joins the training; returns the exit status."""
    prepare = ["dvc", "exp", "run", "--name", arguments.name, *settings(arguments), "prepare"]
    return python(["tools.doctor.check_image"], variables) or python(prepare, variables) or python(["stages.train"], variables)


def settings(arguments: argparse.Namespace) -> list[str]:
    """The parameters as options of `dvc exp run`."""
    return [word for value in (f"environment={arguments.lock}", *arguments.set_param) for word in ("-S", value)]


def python(command: list[str], variables: dict[str, str]) -> int:
    """Runs a module with its output in the log of the job; returns the exit status."""
    return subprocess.run([sys.executable, "-m", *command], env=variables, check=False).returncode


if __name__ == "__main__":
    main()
