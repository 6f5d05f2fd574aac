"""Runs an experiment in a job: `dvc exp run`, `dvc push`, and what git knows of it into the job's output.

    python -m tools.azure.node --name smoke-1 --lock cuda13 --remote NAME url=azure://container/path --results FOLDER ...

tools.azure.submit writes this command. Of several nodes the first does all this; the others prepare the same data, which
gives them the same bytes, and take part in its training.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tools.azure.node.inputs import place
from tools.azure.node.key_vault import hugging_face_token
from tools.azure.node.nodes import first, rendezvous
from tools.azure.node.remote import add
from tools.azure.node.results import write_bundle
from tunepress.core.errors import InputError

PUSHES = 3
AUTHOR = {"NAME": "tunepress", "EMAIL": "tunepress@localhost"}  # of the experiment's commit


def main() -> None:
    """The command line."""
    arguments = parser().parse_args()
    try:
        for given in arguments.input:
            place(*given)
        variables = environment(arguments, os.environ)
        add(arguments.remote[0], arguments.remote[1:])
        code = lead(arguments, variables) if first(os.environ) else follow(arguments, variables)
    except InputError as error:
        sys.exit(f"node: {error}")
    sys.exit(code)


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m tools.azure.node", description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="of the job and of the experiment")
    parser.add_argument("--lock", required=True, help="the environment that is installed, of conf/environment")
    parser.add_argument("-S", "--set-param", action="append", default=[], help="as `dvc exp run` has it")
    parser.add_argument("--input", nargs=2, action="append", default=[], metavar=("MOUNTED", "PLACE"), help="an input of the job")
    parser.add_argument("--remote", nargs="+", required=True, metavar=("NAME", "OPTION=VALUE"), help="DVC's")
    parser.add_argument("--results", type=Path, required=True, help="folder for what git knows of the experiment")
    parser.add_argument("--keyvault-name", help="where the Hugging Face token is")
    parser.add_argument("--client-id", help="the managed identity to log in with, where the node has several")
    return parser


def environment(arguments: argparse.Namespace, found: Mapping[str, str]) -> dict[str, str]:
    """What the commands of a node see: who they are, where the other nodes are, and the token of Hugging Face."""
    variables = rendezvous(found)
    variables |= {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in AUTHOR.items()}
    variables["TUNEPRESS_LOCK"] = f"requirements/{arguments.lock}.txt"
    # Azure ML names the identity of a compute; azure-identity asks for the only one there is unless it is told which.
    if identity := arguments.client_id or found.get("DEFAULT_IDENTITY_CLIENT_ID"):
        os.environ["AZURE_CLIENT_ID"] = variables["AZURE_CLIENT_ID"] = identity
    if arguments.keyvault_name:
        variables["HF_TOKEN"] = hugging_face_token(f"https://{arguments.keyvault_name}.vault.azure.net")
    return variables


def lead(arguments: argparse.Namespace, variables: dict[str, str]) -> int:
    """Runs the experiment, pushes its model and writes its bundle; the exit status of the step that fails."""
    run = ["dvc", "exp", "run", "--name", arguments.name, *settings(arguments)]
    if code := python(["tools.cli.check_image"], variables) or python(run, variables) or push(variables):
        return code
    write_bundle(arguments.name, arguments.results)
    python(["tools.cli.results"], variables)  # fails where a bound is broken, which does not fail an experiment
    return 0


def push(variables: dict[str, str]) -> int:
    """Pushes the model, and again what a connection that broke off has left; the exit status."""
    return next((0 for _ in range(PUSHES) if not python(["dvc", "push"], variables)), 1)


def follow(arguments: argparse.Namespace, variables: dict[str, str]) -> int:
    """Makes what the training reads and joins it; the exit status."""
    prepare = ["dvc", "exp", "run", "--name", arguments.name, *settings(arguments), "prepare"]
    return python(["tools.cli.check_image"], variables) or python(prepare, variables) or python(["stages.train"], variables)


def settings(arguments: argparse.Namespace) -> list[str]:
    """The parameters as `dvc exp run` takes them."""
    return [word for value in (f"environment={arguments.lock}", *arguments.set_param) for word in ("-S", value)]


def python(command: list[str], variables: dict[str, str]) -> int:
    """Runs a module, whose output is that of the job."""
    return subprocess.run([sys.executable, "-m", *command], env=variables, check=False).returncode


if __name__ == "__main__":
    main()
