"""Prints training rows as the model sees them: `make prompts N=3`. What the model learns to write is marked."""

import argparse
import sys

from rich.console import Console
from rich.text import Text

from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl
from tunepress.core.paths import BASE, PREPARED, TRAINING_ROWS
from tunepress.models.hf_model import load_encoder
from tunepress.text.prompt import Prompt
from tunepress.text.segments import Row
from tunepress.text.tokenizer import Tokens

MARKS = ("\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}", "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.cli.prompts", description="Show training rows as the model sees them.")
    parser.add_argument("--rows", type=int, default=3, help="how many (default: %(default)s)")
    try:
        prompts(parser.parse_args().rows)
    except InputError as error:
        sys.exit(f"prompts: {error}")


def prompts(count: int) -> None:
    """Prints the first rows of data/prepared/train.jsonl.

    Raises:
        InputError: `count` is below 1, or prepare has not run.
    """
    if count < 1:
        raise InputError(f"N: must be at least 1, got {count}")
    encoder = load_encoder(BASE, Prompt.load(PREPARED).eos_token_ids)
    console = Console(highlight=False, soft_wrap=True)
    rows = read_jsonl(TRAINING_ROWS)[:count]
    for row, encoded in zip(rows, encoder.encode_segments(rows), strict=True):
        console.print(header(row, encoded), style="dim")
        console.print(marked(row, plain=not console.is_terminal))
        console.print()


def header(row: Row, encoded: list[Tokens]) -> str:
    learned = sum(len(tokens) for tokens, part in zip(encoded, row["segments"], strict=True) if part["train"])
    return f"{row['source']}: {sum(map(len, encoded))} tokens, {learned} of them learned"


def marked(row: Row, plain: bool) -> Text:
    """The text of a row; learned parts are green in a terminal, and between angle quotation marks elsewhere."""
    text = Text()
    before, after = MARKS if plain else ("", "")
    for part in row["segments"]:
        text.append(f"{before}{part['text']}{after}" if part["train"] else part["text"], "bold green" if part["train"] else "")
    return text


if __name__ == "__main__":
    main()
