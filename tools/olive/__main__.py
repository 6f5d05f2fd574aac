"""`make import-olive CONFIG=olive-config.json NAME=mine`: writes conf/experiment/mine.yaml and reports on each field."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from tools.olive import document, experiment
from tools.olive.mapping import summary, table
from tools.olive.translation import Translation, translate
from tunepress.core.errors import InputError


def main() -> None:
    parser = argparse.ArgumentParser(prog="make import-olive", description="Convert an Olive configuration to an experiment.")
    parser.add_argument("config", type=Path, help="Olive configuration in JSON or YAML, such as olive-config.json")
    parser.add_argument("--name", required=True, help="name of the experiment, conf/experiment/NAME.yaml")
    parser.add_argument("--strict", action="store_true", help="write nothing if a field is not supported")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        path = experiment.path_of(arguments.name)
        translation = translate(document.read(arguments.config), arguments.config.parent)
        console.print(table(translation.fields))
        if arguments.strict and translation.unsupported:
            raise InputError(strict_error(arguments.config, translation))
        values, texts = experiment.with_chat_template(path, translation.values)
        texts[path] = experiment.render(path.stem, arguments.config.name, translation.target, values)
        experiment.write(path, texts, values, str(arguments.config))
    except InputError as error:
        sys.exit(f"import-olive: {error}")
    for message in translation.notes:
        print(message)
    print(f"{path}: {summary(translation.fields)}; run `{experiment.command(path.stem, translation.target)}`")


def strict_error(config: Path, translation: Translation) -> str:
    """The error of --strict, with the fields that are not supported."""
    names = ", ".join(field.leaf.path for field in translation.unsupported)
    return f"{config}: {len(translation.unsupported)} not supported, nothing is written (--strict): {names}"


if __name__ == "__main__":
    main()
