"""The command line: `make doctor`, or `make doctor EXPERIMENT=phi3_mini_lora`."""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tools.doctor import credentials, devices, places, room, versions
from tools.doctor.finding import Finding, State, error
from tools.doctor.recipe import Recipe
from tunepress.core.errors import InputError

COLORS = {State.ok: "green", State.warning: "yellow", State.error: "red"}
WIDTH = 140


def main() -> None:
    """Prints the table; exits with 1 where the recipe cannot run."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.doctor",
        description="Say whether a recipe can run here, and what to do where it cannot.",
        epilog="Without overrides it is params.yaml, the recipe of `make repro`.",
    )
    parser.add_argument("overrides", nargs="*", help="as of `dvc exp run -S`: +experiment=phi3_mini_lora build=cuda_int4")
    warnings.filterwarnings("ignore", category=FutureWarning)  # peft and transformers warn about each other
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    try:
        recipe = Recipe.read(parser.parse_args().overrides)
        with console.status("looking"):
            findings = list(examined(recipe))
    except InputError as wrong:
        sys.exit(f"doctor: {wrong}")
    except KeyboardInterrupt:
        sys.exit("doctor: interrupted")
    console.print(table(findings, recipe.params.base_model.name))
    wrong_ones = [finding.subject for finding in findings if finding.state is State.error]
    if wrong_ones:
        sys.exit(f"doctor: this recipe cannot run here; see {', '.join(wrong_ones)}")
    console.print("This recipe can run here.")


def examined(recipe: Recipe) -> Iterator[Finding]:
    """All findings, in the order of the table."""
    looks: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": lambda: versions.look(recipe),
        "devices": lambda: devices.look(recipe),
        "disk, memory": lambda: room.look(recipe),
        "places": lambda: places.look(recipe),
        "credentials": credentials.look,
    }
    for subject, look in looks.items():
        try:
            yield from look()
        except InputError as wrong:
            yield error(subject, str(wrong), "mend that, and again")
        except Exception as failed:  # a package that is broken or absent is what a doctor is called for
            yield error(
                subject, f"could not be looked at ({type(failed).__name__})", "make setup, or another environment, and again"
            )


def table(findings: list[Finding], model: str) -> Table:
    """One line for each finding."""
    drawn = Table(title=f"Can {model} be made here?")
    drawn.add_column("looked at", no_wrap=True)
    drawn.add_column("", no_wrap=True)
    drawn.add_column("found", overflow="fold")
    drawn.add_column("advice", overflow="fold")
    for finding in findings:
        state = f"[{COLORS[finding.state]}]{finding.state.value}[/]"
        drawn.add_row(escape(finding.subject), state, escape(finding.found), escape(finding.advice))
    return drawn


if __name__ == "__main__":
    main()
