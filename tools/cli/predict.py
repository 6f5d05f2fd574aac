"""Answers a text with the int4 model, `make predict TEXT="..."`, or each line of standard input.

The prompt is the one that the model was trained with, from the prompt.json in its folder. If it has several columns,
each line must be a JSON object with all of them. A model of conversations answers a text, or a JSON list of messages.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable
from io import TextIOWrapper
from pathlib import Path

from tunepress.core.errors import InputError
from tunepress.core.paths import ONNX
from tunepress.inference.calibration import abstention_bound, answer_probabilities
from tunepress.inference.genai_config import GenaiConfig
from tunepress.inference.onnx_model import OnnxModel
from tunepress.text.chat_prompt import ChatPrompt
from tunepress.text.labels import ABSTAINED
from tunepress.text.prompt import Prompt

VARIABLE = "TUNEPRESS_TEXT"  # set by the Makefile, to pass a text with quotes and dollar signs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.cli.predict", description="Answer with the int4 model.")
    parser.add_argument("text", nargs="*", help="text to answer; by default the lines of standard input")
    parser.add_argument("--model", type=Path, default=ONNX, help="folder of the ONNX model (default: %(default)s)")
    parser.add_argument("--probabilities", action="store_true", help="print the probability of each label, as JSON")
    parser.add_argument(
        "--abstain-below",
        type=float,
        metavar="P",
        help=f"print {ABSTAINED} where the most likely label is less probable; by default evaluate.abstain_below of the run",
    )
    arguments = parser.parse_args()
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    texts: Iterable[str] = arguments.text or ([os.environ[VARIABLE]] if os.environ.get(VARIABLE) else sys.stdin)
    try:
        predict(texts, arguments.model, arguments.probabilities, arguments.abstain_below)
    except InputError as error:
        sys.exit(f"predict: {error}")
    except UnicodeError:
        sys.exit("predict: the text is not UTF-8")
    except KeyboardInterrupt:
        sys.exit("predict: interrupted")


def predict(texts: Iterable[str], folder: Path, probabilities: bool = False, abstain_below: float | None = None) -> None:
    """Prints the model's answer to each text, one per line, with the probabilities of labels as JSON."""
    predictor = Predictor(folder, probabilities, abstain_below)
    for number, text in enumerate(texts, start=1):
        text.encode()  # an argument that was not UTF-8 contains surrogates, which a tokenizer cannot encode
        if "\0" in text:
            raise InputError(f"line {number}: contains a NUL character, at which the tokenizer stops")
        if text.strip():
            try:
                print(predictor.answer(text.strip()), flush=True)
            except InputError as error:
                raise InputError(f"line {number}: {error}") from error


class Predictor:
    """A model and how it is asked.

    Args:
        folder: of the ONNX model.
        probabilities: whether an answer is JSON with the probability of each label.
        abstain_below: the probability of the most likely label below which the answer is ABSTAINED; None: as in prompt.json.

    Raises:
        InputError: the folder is not a model's, or probabilities of labels are needed and it has none.
    """

    def __init__(self, folder: Path, probabilities: bool, abstain_below: float | None) -> None:
        GenaiConfig.read(folder)  # a folder without a model is named as such
        self._prompt = Prompt.load(folder)
        self._chat = ChatPrompt(folder, self._prompt)
        self._with_probabilities = probabilities
        self._bound = abstention_bound(abstain_below, self._prompt, self._chat)
        self._completions = (self._chat.label_completions() or ()) if probabilities or self._bound else ()
        if probabilities and not self._completions:
            raise InputError("--probabilities: this model has no probabilities of labels alone; leave it out")
        self._model = OnnxModel(folder)

    def answer(self, text: str) -> str:
        """What is printed for a text."""
        prompt = self._chat.render_text(text)
        answer = self._model.answer(prompt, self._prompt.max_new_tokens, self._prompt.guidance).strip()
        if not self._completions:
            return answer
        completions = [self._model.encode_completion(completion, prompt) for completion in self._completions]
        tokens = self._model.encode_prompt(prompt)
        probabilities = answer_probabilities(self._model, tokens, completions, self._prompt.temperature)
        answer = ABSTAINED if max(probabilities) < self._bound else answer
        if not self._with_probabilities:
            return answer
        by_label = {label: round(value, 4) for label, value in zip(self._prompt.labels or (), probabilities, strict=True)}
        return json.dumps({"answer": answer, "probabilities": by_label}, ensure_ascii=False)


if __name__ == "__main__":
    main()
