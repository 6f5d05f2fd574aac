"""Answers a text with the int4 model, `make predict TEXT="..."`, or each line of standard input.

The prompt is the one that the model was trained with, from the prompt.json in its folder. If it has several columns,
each line must be a JSON object with all of them. A model of conversations answers a text, or a JSON list of messages.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from io import TextIOWrapper
from pathlib import Path

from tunepress.core.errors import InputError
from tunepress.core.paths import ONNX
from tunepress.inference.onnx_model import OnnxModel
from tunepress.text.chat_prompt import ChatPrompt
from tunepress.text.prompt import Prompt

VARIABLE = "TUNEPRESS_TEXT"  # set by the Makefile, to pass a text with quotes and dollar signs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.cli.predict", description="Answer with the int4 model.")
    parser.add_argument("text", nargs="*", help="text to answer; by default the lines of standard input")
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
    """Prints the model's answer to each text, one per line."""
    model, prompt = OnnxModel(folder), Prompt.load(folder)
    chat = ChatPrompt(folder, prompt)
    for number, text in enumerate(texts, start=1):
        text.encode()  # an argument that was not UTF-8 contains surrogates, which a tokenizer cannot encode
        if "\0" in text:
            raise InputError(f"line {number}: contains a NUL character, at which the tokenizer stops")
        if text.strip():
            print(answer(model, prompt, chat, text.strip(), number), flush=True)


def answer(model: OnnxModel, prompt: Prompt, chat: ChatPrompt, text: str, number: int) -> str:
    try:
        return model.answer(chat.render_text(text), prompt.max_new_tokens).strip()
    except InputError as error:
        raise InputError(f"line {number}: {error}") from error


if __name__ == "__main__":
    main()
