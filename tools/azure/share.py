"""Runs a DVC command that uses the remote in Azure: `make push`, `make pull`, `python -m tools.azure.share exp push ...`.

The container is checked first, so that a wrong key or a missing container is reported in one line. It is checked again during
a transfer, and the command is stopped once it has not answered for a while: DVC itself would try each file for 84 s.
Files that have been transferred are complete, so the same command resumes later.
"""

import argparse
import subprocess
import sys
import time

from dvc.config import Config, ConfigError

from tools.azure.container import Container
from tunepress.core.errors import InputError, one_line

TRANSFERS = (
    ["push"],
    ["pull"],
    ["fetch"],
    ["exp", "push"],
    ["exp", "pull"],
)  # other commands may run stages, which need no network
PATIENCE = 60.0  # seconds without an answer
GRACE = 10  # seconds to exit in


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.azure.share", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        help="seconds without an answer before a transfer is stopped (default: %(default)g)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="arguments of `dvc`")
    arguments = parser.parse_args()
    try:
        sys.exit(share(arguments.command, arguments.patience))
    except InputError as error:
        sys.exit(f"{' '.join(['dvc', *arguments.command])}: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


def share(command: list[str], patience: float = PATIENCE) -> int:
    """Runs a DVC command.

    Args:
        command: arguments of `dvc`.
        patience: seconds without an answer from the container before a transfer is stopped.

    Returns:
        DVC's exit code.

    Raises:
        InputError: the container cannot be accessed, or stopped answering.
    """
    try:
        config = Config.from_cwd()
    except ConfigError as error:
        raise InputError(f"{one_line(error)}; `make remote-azure URL=azure://container/path` sets up the remote") from error
    container = Container(config, named_remote(command))
    container.check()
    with subprocess.Popen([sys.executable, "-m", "dvc", *command]) as process:
        if any(command[: len(words)] == words for words in TRANSFERS):
            watch(process, container, patience)
        return process.wait()


def named_remote(command: list[str]) -> str | None:
    """The value of `--remote` in a DVC command."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-r", "--remote")
    name: str | None = parser.parse_known_args(command)[0].remote
    return name


def watch(process: subprocess.Popen[bytes], container: Container, patience: float) -> None:
    """Waits for a process, and stops it once the container has not answered for `patience` seconds.

    Raises:
        InputError: the process was stopped.
    """
    last_answer = time.monotonic()
    while not exited(process, patience / 4):
        problem = container.problem()
        if problem is None:
            last_answer = time.monotonic()
        elif time.monotonic() - last_answer >= patience:
            process.terminate()
            if not exited(process, GRACE):
                process.kill()
            raise InputError(f"{problem}; stopped after {patience:g} s; run it again to resume the transfer")


def exited(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether a process exits within some seconds."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


if __name__ == "__main__":
    main()
