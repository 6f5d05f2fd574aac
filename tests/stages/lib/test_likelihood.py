"""Likelihoods, against cases worked out by hand and against whole forward passes."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch

from stages import build
from stages.lib.likelihood import Logits, Tokens, agreement, calibration_error, chosen, log_softmax, score, softmax
from stages.lib.onnx_model import OnnxModel
from stages.lib.torch_model import TorchModel
from tests.stages.recipes import recipe

PROMPTS = ["Text: a fine day\nTone: ", "Text: über die Straße\nTone: ", "Text: 雨\nTone: "]
LABELS = ("joy", "fear", "a")


class Dice:
    """A model that knows no context: a token is a letter, and each has its own logit."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.row = np.log(np.array([weights.get(chr(code), 1e-9) for code in range(128)], dtype=np.float32))

    def encode_prompt(self, text: str) -> Tokens:
        return [ord(letter) for letter in text]

    def encode_completion(self, text: str) -> Tokens:
        return [*self.encode_prompt(text), 0]

    def logits(self, asked: Sequence[tuple[Tokens, list[Tokens]]]) -> Iterator[tuple[int, list[Logits]]]:
        for number, (_, completions) in reversed(list(enumerate(asked))):
            yield number, [np.tile(self.row, (len(completion), 1)) for completion in completions]


def row(expected: str, rest: str = "") -> dict[str, Any]:
    return {"prompt": "which?", "completion": expected + rest, "expected": expected}


def test_the_likelihoods_of_labels_are_those_worked_out_by_hand() -> None:
    # y: 0.6, n: 0.3, end: 0.1; each answer is a letter and the end, so y has 0.6 / (0.6 + 0.3) of both
    likeliest, figures = score(Dice({"y": 0.6, "n": 0.3, "\0": 0.1}), [row("y"), row("n"), row("y"), row("y")], ("n", "y"))
    assert likeliest == [{"likeliest": "y", "confidence": "0.6667"}] * 4
    # (0.06³ · 0.03) ^ (-1/8): three answers y and one n, of two tokens each
    assert figures["perplexity"] == pytest.approx((0.06**3 * 0.03) ** (-1 / 8), abs=1e-4)
    assert figures["likelihood_accuracy"] == 0.75
    assert figures["calibration_error"] == pytest.approx(0.75 - 2 / 3, abs=1e-4)


def test_what_follows_a_label_in_the_completion_counts_for_every_label() -> None:
    model = Dice({"y": 0.5, "n": 0.25, "!": 0.125, "\0": 0.125})
    likeliest, figures = score(model, [row("n", "!")], ("n", "y"))
    assert likeliest == [{"likeliest": "y", "confidence": "0.6667"}]
    assert figures["perplexity"] == pytest.approx((0.25 * 0.125 * 0.125) ** (-1 / 3), abs=1e-4)


def test_free_text_has_a_perplexity_and_no_labels() -> None:
    likeliest, figures = score(Dice({"a": 0.5, "b": 0.25, "\0": 0.25}), [row("ab"), row("a")], None)
    assert likeliest == [{}, {}]
    assert figures == {"perplexity": pytest.approx((0.5 * 0.25 * 0.25 * 0.5 * 0.25) ** (-1 / 5), abs=1e-4)}


def test_the_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55, 1.0])
    right = np.array([True, True, True, False, False, True, True])
    # 0.9 to 1: five rows, 4.8 expected and 4 right; 0.5 to 0.6: two rows, 1.1 expected and 1 right
    assert calibration_error(confidence, right) == pytest.approx((0.8 + 0.1) / 7)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0


def test_agreement_is_the_divergence_worked_out_by_hand() -> None:
    first = np.log(np.array([[0.5, 0.5], [0.9, 0.1]], dtype=np.float32)) + 3  # a constant changes no probability
    second = np.log(np.array([[0.25, 0.75], [0.9, 0.1]], dtype=np.float32))
    same, divergence = agreement(first, second)
    assert same == 1  # of two equal logits the first counts, which is not the second model's
    assert divergence == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75), abs=1e-6)
    assert agreement(first, first)[1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("spread", [1, 30, 1000])
def test_probabilities_are_those_of_scipy_to_the_bit(spread: int) -> None:
    logits = np.random.default_rng(0).normal(scale=spread, size=(3, 5000))
    np.testing.assert_array_equal(log_softmax(logits), scipy.special.log_softmax(logits, axis=-1))
    np.testing.assert_array_equal(softmax(logits), scipy.special.softmax(logits, axis=-1))


@pytest.fixture(scope="module")
def fp32(tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp32") / "onnx"
    build.build(recipe("fp32"), tiny_phi3, folder)
    return folder


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_torch_gives_the_logits_of_one_whole_forward_pass(tiny_phi3: Path, batch_size: int) -> None:
    model = TorchModel(tiny_phi3, batch_size)
    asked = [(model.encode_prompt(prompt), [model.encode_completion(label) for label in LABELS]) for prompt in PROMPTS * 2]
    found = dict(model.logits(asked))
    assert sorted(found) == list(range(len(asked)))
    for number, (prompt, completions) in enumerate(asked):
        for logits, completion in zip(found[number], completions, strict=True):
            with torch.inference_mode():
                whole = model.model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].numpy()
            np.testing.assert_allclose(logits, whole, atol=1e-5)


def test_a_full_precision_onnx_model_gives_the_logits_of_torch(tiny_phi3: Path, fp32: Path) -> None:
    merged, onnx = TorchModel(tiny_phi3, 4), OnnxModel(fp32)
    asked = [(onnx.encode_prompt(prompt), [onnx.encode_completion(label) for label in LABELS]) for prompt in PROMPTS]
    expected = dict(merged.logits(asked))
    for number, found in onnx.logits(asked):
        for one, other, completion in zip(found, expected[number], asked[number][1], strict=True):
            assert one.shape == (len(completion), 260)
            np.testing.assert_allclose(one, other, atol=1e-4)
            np.testing.assert_allclose(chosen(one, completion), chosen(other, completion), atol=1e-4)


@pytest.mark.parametrize("text", ["joy", " joy", "", "joy<|end|>", "雨\n"])
def test_both_runtimes_end_an_answer_with_the_same_tokens(tiny_phi3: Path, fp32: Path, text: str) -> None:
    assert OnnxModel(fp32).encode_completion(text) == TorchModel(tiny_phi3).encode_completion(text)


def test_a_completion_of_its_end_alone_is_scored(tiny_phi3: Path, fp32: Path) -> None:
    for model in (TorchModel(tiny_phi3), OnnxModel(fp32)):
        ((_, (logits,)),) = model.logits([(model.encode_prompt("Text: "), [[0]])])
        assert logits.shape == (1, 260)
