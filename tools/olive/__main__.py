"""`make import-olive CONFIG=olive-config.json NAME=mine`: writes conf/experiment/mine.yaml, tells what became of each field."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from tools.olive import document, experiment
from tools.olive.table import summary, table
from tools.olive.translation import Translation, translate
from tunepress.core.errors import InputError


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make import-olive", description="Make an experiment of an Olive configuration.")
    parser.add_argument("config", type=Path, help="the configuration, such as olive-config.json")
    parser.add_argument("--name", required=True, help="of the experiment: conf/experiment/NAME.yaml")
    parser.add_argument("--strict", action="store_true", help="write nothing if a field is not supported")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        path = experiment.path_of(arguments.name)
        translation = translate(document.read(arguments.config), arguments.config.parent)
        console.print(table(translation.lines))
        if arguments.strict and translation.refused:
            raise InputError(not_strict(arguments.config, translation))
        text = experiment.text_of(path.stem, arguments.config.name, translation.target, translation.values)
        experiment.write(path, text, translation.values, str(arguments.config))
    except InputError as error:
        sys.exit(f"import-olive: {error}")
    for said in translation.absent:
        print(said)
    print(f"{path}: {summary(translation.lines)}; run `{experiment.command(path.stem, translation.target)}`")


def not_strict(config: Path, translation: Translation) -> str:
    """Names the fields that nothing here does."""
    named = ", ".join(line.leaf.path for line in translation.refused)
    return f"{config}: {len(translation.refused)} not supported, nothing is written (--strict): {named}"


if __name__ == "__main__":
    main()
