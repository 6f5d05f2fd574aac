"""Command line: `make search SEARCH=int4`."""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from tools.search.report import plot, sentence, spread, table, tested_lines
from tools.search.schema import load
from tools.search.trials import Trials
from tools.search.verdict import Verdict
from tunepress.core.errors import InputError

FOLDER = Path(".search")  # ignored by git: the journal, the clone and the logs


def main() -> None:
    description = "Search for the best recipe that meets the constraints."
    parser = argparse.ArgumentParser(prog="python -m tools.search", description=description)
    parser.add_argument("name", nargs="?", default="", help="name of a file in conf/search/, without .yaml")
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
        sys.exit(f"search: interrupted; `make search SEARCH={name}` resumes")


def search(name: str, console: Console) -> Verdict:
    """Runs a search and shows its progress."""
    config = load(name)
    with console.status("") as status:

        def log(line: str) -> None:
            console.print(line, markup=False, soft_wrap=True)

        return Trials(name, config, FOLDER / name, log, status.update).run()


def report(verdict: Verdict, path: Path, console: Console) -> None:
    """Prints the table, the winner and how to apply it, and draws the plot."""
    console.print(table(verdict))
    plot(verdict, path)
    console.print(f"The plot is {path}.", markup=False)
    console.print(sentence(verdict), markup=False, soft_wrap=True)
    if line := spread(verdict):
        console.print(line, markup=False, soft_wrap=True)
    if verdict.tested:
        lines = ["On the test rows, which were not used for the choice:", *tested_lines(verdict)]
        console.print("\n".join(lines), markup=False, soft_wrap=True)
    if verdict.winner is verdict.trials[0]:
        console.print("There is nothing to apply: it is the default recipe.")
    elif verdict.winner and verdict.tested[0].metrics:
        console.print(f"Apply it: dvc exp apply {verdict.tested[0].name}", markup=False)
    if any(trial.reason for trial in verdict.trials):
        console.print(f"Failed recipes are not tried again; to retry them, rm {path.parent / 'study.log'}", markup=False)


if __name__ == "__main__":
    main()
