"""The command line: `make search SEARCH=int4`."""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from tools.search.schema import load
from tools.search.show import plot, table
from tools.search.trials import Trials
from tools.search.verdict import Verdict, sentence, tested_lines
from tunepress.core.errors import InputError

FOLDER = Path(".search")  # not in git: the journal, the clone and the logs


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.search", description="Search the recipe that meets the constraints.")
    parser.add_argument("name", nargs="?", default="", help="a file of conf/search/, without .yaml")
    name = parser.parse_args().name
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False, soft_wrap=False)
    try:
        report(search(name, console), FOLDER / name / "pareto.svg", console)
    except InputError as error:
        sys.exit(f"search: {error}")
    except OSError as error:
        sys.exit(f"search: {error.filename or 'disk'}: {(error.strerror or str(error)).lower()}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"search: {' '.join(error.cmd[:2])}: {error.stderr.strip()}")
    except KeyboardInterrupt:
        sys.exit(f"search: interrupted; `make search SEARCH={name}` goes on")


def search(name: str, console: Console) -> Verdict:
    """Runs a search, showing what it does."""
    wanted = load(name)
    with console.status("") as status:

        def say(line: str) -> None:
            console.print(line, markup=False, soft_wrap=True)

        return Trials(name, wanted, FOLDER / name, say, status.update).run()


def report(verdict: Verdict, path: Path, console: Console) -> None:
    """Prints the table, the winner and how to take it, and draws the plot."""
    console.print(table(verdict))
    plot(verdict, path)
    console.print(f"{path} shows them.", markup=False)
    console.print(sentence(verdict), markup=False, soft_wrap=True)
    if verdict.tested:
        lines = ["On the test rows, which had no say in this:", *tested_lines(verdict)]
        console.print("\n".join(lines), markup=False, soft_wrap=True)
    if verdict.winner is verdict.trials[0]:
        console.print("There is nothing to take: it is the recipe that the search began with.")
    elif verdict.winner and verdict.tested[0].figures:
        console.print(f"Take it: dvc exp apply {verdict.tested[0].name}", markup=False)
    if any(trial.reason for trial in verdict.trials):
        console.print(f"Failed recipes are not tried again; rm {path.parent / 'study.log'} forgets them.", markup=False)


if __name__ == "__main__":
    main()
