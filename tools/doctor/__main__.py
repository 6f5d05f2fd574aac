"""Command line: `make doctor`, or `make doctor EXPERIMENT=phi3_mini_lora`."""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tools.doctor import credentials, devices, places, resources, versions
from tools.doctor.finding import Finding, State, error
from tools.doctor.recipe import Recipe
from tunepress.core.errors import InputError

COLORS = {State.ok: "green", State.warning: "yellow", State.error: "red"}
WIDTH = 140


def main() -> None:
    """Prints the table; exits with 1 if the recipe cannot run."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.doctor",
        description="Check whether a recipe can run here, and what to do if it cannot.",
        epilog="Without overrides, the recipe is params.yaml, as in `make repro`.",
    )
    parser.add_argument("overrides", nargs="*", help="as in `dvc exp run -S`: +experiment=phi3_mini_lora build=cuda_int4")
    warnings.filterwarnings("ignore", category=FutureWarning)  # peft and transformers warn about each other
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    try:
        recipe = Recipe.read(parser.parse_args().overrides)
        with console.status("checking"):
            results = list(examine(recipe))
    except InputError as problem:
        sys.exit(f"doctor: {problem}")
    except KeyboardInterrupt:
        sys.exit("doctor: interrupted")
    console.print(as_table(results, recipe.params.base_model.name))
    errors = [finding.subject for finding in results if finding.state is State.error]
    if errors:
        sys.exit(f"doctor: this recipe cannot run here; see {', '.join(errors)}")
    console.print("This recipe can run here.")


def examine(recipe: Recipe) -> Iterator[Finding]:
    """All findings, in the order of the table."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": lambda: versions.findings(recipe),
        "devices": lambda: devices.findings(recipe),
        "disk, memory": lambda: resources.findings(recipe),
        "places": lambda: places.findings(recipe),
        "credentials": credentials.findings,
    }
    for subject, check in checks.items():
        try:
            yield from check()
        except InputError as problem:
            yield error(subject, str(problem), "fix this and try again")
        except Exception as failure:  # broken or missing packages are what a doctor is for
            yield error(
                subject,
                f"could not be checked ({type(failure).__name__})",
                "make setup, or use another environment, and try again",
            )


def as_table(findings: list[Finding], model: str) -> Table:
    """One row per finding."""
    table = Table(title=f"Can {model} be made here?")
    table.add_column("checked", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("result", overflow="fold")
    table.add_column("advice", overflow="fold")
    for finding in findings:
        state = f"[{COLORS[finding.state]}]{finding.state.value}[/]"
        table.add_row(escape(finding.subject), state, escape(finding.detail), escape(finding.advice))
    return table


if __name__ == "__main__":
    main()
