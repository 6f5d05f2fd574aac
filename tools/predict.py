"""Answers with the int4 model: `make predict TEXT="..."`, or one line of standard input after the other.

The prompt is the one the model was trained with, from prompt.json beside its weights. Where that has several columns,
a line is a JSON object with all of them.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable
from io import TextIOWrapper
from pathlib import Path

from stages.lib.edge.errors import InputError
from stages.lib.edge.paths import ONNX
from stages.lib.onnx_model import OnnxModel
from stages.lib.prompt import Prompt

VARIABLE = "TUNEPRESS_TEXT"  # the Makefile's way to hand over a text with quotes and dollar signs in it


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.predict", description="Answer with the int4 model.")
    parser.add_argument("text", nargs="*", help="what to answer; without it, lines of standard input")
    parser.add_argument("--model", type=Path, default=ONNX, help="folder of the ONNX model (default: %(default)s)")
    arguments = parser.parse_args()
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    texts: Iterable[str] = arguments.text or ([os.environ[VARIABLE]] if os.environ.get(VARIABLE) else sys.stdin)
    try:
        predict(texts, arguments.model)
    except InputError as error:
        sys.exit(f"predict: {error}")
    except UnicodeError:
        sys.exit("predict: the text is not UTF-8")
    except KeyboardInterrupt:
        sys.exit("predict: interrupted")


def predict(texts: Iterable[str], folder: Path) -> None:
    """Prints the model's answer to each text, one a line."""
    model, prompt = OnnxModel(folder), Prompt.load(folder)
    for number, text in enumerate(texts, start=1):
        text.encode()  # an argument that was not UTF-8 holds surrogates, which a tokenizer chokes on
        if "\0" in text:
            raise InputError(f"line {number}: holds a NUL character, at which the tokenizer stops reading")
        if text.strip():
            rendered = prompt.render_prompt(row_of(text.strip(), prompt.columns, number))
            print(model.answer(rendered, prompt.max_new_tokens).strip(), flush=True)


def row_of(text: str, columns: list[str], number: int) -> dict[str, str]:
    """The columns that a text fills: the only one there is, or those of a JSON object.

    Raises:
        InputError: there are several, and the text has not all of them.
    """
    if len(set(columns)) == 1:
        return {columns[0]: text}
    try:
        row = json.loads(text)
        if any(row[column] is None for column in columns):
            raise ValueError("a column is null")
        return {column: row[column] for column in columns}
    except (ValueError, KeyError, TypeError) as error:
        wanted = ", ".join(f'"{column}": "..."' for column in dict.fromkeys(columns))
        raise InputError(f"line {number}: this model wants a JSON object {{{wanted}}}") from error


if __name__ == "__main__":
    main()
