"""Checks that a copy of a model answers here as it did where it was built: `python -m tools.cli.verify FOLDER`.

conformance.jsonl, in the model's folder or beside it, says which files the model has, what it answered, and how much that may
differ. The exit code is 1 if the files are others or the answers differ by more. It needs what serving needs.
"""

import argparse
import json
import math
import sys
from pathlib import Path

from tunepress.core.errors import InputError, one_line
from tunepress.core.paths import ONNX
from tunepress.inference import conformance
from tunepress.inference.conformance import FILE_NAME, Answer, Header, recorded_path
from tunepress.inference.onnx_model import OnnxModel


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.cli.verify", description=__doc__.splitlines()[0].partition(":")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ONNX, help="folder of the ONNX model (default: %(default)s)")
    parser.add_argument("--against", type=Path, metavar="FILE", help=f"{FILE_NAME} if it is not in the folder or beside it")
    arguments = parser.parse_args()
    try:
        print(verify(arguments.folder, arguments.against))
    except InputError as error:
        sys.exit(f"verify: {error}")


def verify(folder: Path, against: Path | None = None) -> str:
    """Compares a model with its conformance.jsonl and returns the result in one line.

    Raises:
        InputError: the folder or the file does not exist, the model has other files, or it answers differently.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: not found; name the folder of an ONNX model, or run `make repro`")
    path = against or recorded_path(folder)
    header, recorded = conformance.read(path)
    check_files(folder, header, path)
    prompts, tokens = [answer.prompt for answer in recorded], [answer.tokens for answer in recorded]
    model = OnnxModel(folder)
    try:
        answers = conformance.answer_prompts(model, folder, prompts, header.max_new_tokens, tokens)
    except (RuntimeError, IndexError) as error:
        raise InputError(f"{path}: the model cannot compute its answers ({one_line(error)}); copy the file again") from error
    return compare(header, recorded, answers, path)


def check_files(folder: Path, header: Header, path: Path) -> None:
    """Raises InputError if the files in the folder are not those of the model that conformance.jsonl describes."""
    actual = conformance.model_files(folder)
    for name in sorted(header.model.keys() | actual.keys()):
        if name not in actual:
            raise InputError(f"{folder / name}: not found, so this is not the model that {path} describes; copy the model again")
        if name not in header.model:
            raise InputError(f"{folder / name}: not a file of the model that {path} describes; move it elsewhere")
        if actual[name] != header.model[name]:
            raise InputError(
                f"{folder / name}: another sha256 than that of the model that {path} describes; copy the model and the file again"
            )


def compare(header: Header, recorded: list[Answer], answers: list[Answer], path: Path) -> str:
    """The result in one line.

    Raises:
        InputError: the answers or the probabilities differ by more than the tolerance.
    """
    pairs = list(zip(recorded, answers, strict=True))
    for number, (before, after) in enumerate(pairs, start=2):
        if before.probabilities.keys() != after.probabilities.keys():
            raise InputError(f"{path} line {number}: its labels are not those of the model; copy the file again")
    is_same = [before.tokens == after.tokens for before, after in pairs]
    changes = [max(probability_changes(*pair).values()) for pair in pairs]
    least, most = math.ceil(round(header.tolerance.answers * len(pairs), 6)), header.tolerance.probability
    result = (
        f"{sum(is_same)} of {len(pairs)} answers as recorded (at least {least}), "
        f"largest change of a probability {max(changes):.3f} (at most {most:g})"
    )
    too_few = sum(is_same) < least
    wrong = [index for index, change in enumerate(changes) if change > most or (too_few and not is_same[index])]
    if not wrong:
        return result
    raise InputError(f"{result}; {path} line {wrong[0] + 2}: {difference(*pairs[wrong[0]])}{other_packages(header)}")


def probability_changes(recorded: Answer, answer: Answer) -> dict[str, float]:
    """How much each probability has changed; infinitely if it is not a number."""
    changes = {name: abs(answer.probabilities[name] - value) for name, value in recorded.probabilities.items()}
    return {name: math.inf if math.isnan(change) else change for name, change in changes.items()}


def difference(recorded: Answer, answer: Answer) -> str:
    """What a model answers and what it answered, with the probability that has changed the most."""
    texts = [json.dumps(each.answer, ensure_ascii=False) for each in (answer, recorded)]
    if texts[0] == texts[1] and answer.tokens != recorded.tokens:
        texts = [str(each.tokens) for each in (answer, recorded)]
    changes = probability_changes(recorded, answer)
    name = max(changes, key=changes.__getitem__)
    values = f"{answer.probabilities[name]:.3f}, recorded {recorded.probabilities[name]:.3f}"
    return f"answered {texts[0]}, recorded {texts[1]}; the probability of {name!r} is {values}"


def other_packages(header: Header) -> str:
    """The end of a message: the packages with which the answers were recorded, if others are installed here."""
    actual = conformance.packages()
    if actual == header.packages:
        return ""
    before, after = (", ".join(f"{name} {version}" for name, version in each.items()) for each in (header.packages, actual))
    return f"; recorded with {before}, compared with {after}"


if __name__ == "__main__":
    main()
