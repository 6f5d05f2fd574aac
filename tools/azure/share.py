"""Runs a DVC command that speaks with the remote in Azure: `make push`, `make pull`, `python -m tools.azure.share exp push ...`.

The container is asked first, so a wrong key or an absent container is one line. While files are moved it is asked again
and again, and once it has not answered for a while the command is ended: DVC itself would try each file for 84 s.
What was moved until then is whole and stays, so the same command goes on later.
"""

import argparse
import subprocess
import sys
import time

from dvc.config import Config, ConfigError

from tools.azure.container import Container
from tunepress.core.errors import InputError, one_line

TRANSFERS = (["push"], ["pull"], ["fetch"], ["exp", "push"], ["exp", "pull"])  # others may run stages, which need no network
PATIENCE = 60.0  # seconds without an answer
GRACE = 10  # seconds to end in


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.azure.share", description=__doc__.splitlines()[0])
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds without an answer (default: %(default)g)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what comes after `dvc`")
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
        command: its words, without `dvc`.
        patience: how long the container may be silent while files are moved, in seconds.

    Returns:
        DVC's exit code.

    Raises:
        InputError: the container does not let us in, or fell silent.
    """
    try:
        config = Config.from_cwd()
    except ConfigError as error:
        raise InputError(f"{one_line(error)}; `make remote-azure URL=azure://container/path` sets the remote up") from error
    container = Container(config, named_remote(command))
    container.check()
    with subprocess.Popen([sys.executable, "-m", "dvc", *command]) as process:
        if any(command[: len(words)] == words for words in TRANSFERS):
            watch(process, container, patience)
        return process.wait()


def named_remote(command: list[str]) -> str | None:
    """The remote that a DVC command names, if it does."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-r", "--remote")
    name: str | None = parser.parse_known_args(command)[0].remote
    return name


def watch(process: subprocess.Popen[bytes], container: Container, patience: float) -> None:
    """Waits for a process, and ends it once the container has not answered for `patience` seconds.

    Raises:
        InputError: it was ended.
    """
    answered = time.monotonic()
    while not ended(process, patience / 4):
        trouble = container.trouble()
        if trouble is None:
            answered = time.monotonic()
        elif time.monotonic() - answered >= patience:
            process.terminate()
            if not ended(process, GRACE):
                process.kill()
            raise InputError(f"{trouble}; ended after {patience:g} s, what was moved stays: run it again to go on")


def ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether a process ends within some seconds."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


if __name__ == "__main__":
    main()
