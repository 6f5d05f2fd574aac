"""Likelihoods, against cases computed by hand and against whole forward passes."""

import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch

from stages.build import stage as build
from tests.stages.recipes import recipe
from tunepress.inference import onnx_model, scoring, torch_model
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.scoring import (
    Logits,
    Requests,
    Scorer,
    agreement,
    log_softmax,
    score,
    softmax,
    token_logprobs,
)
from tunepress.inference.torch_model import TorchModel
from tunepress.text.segments import Turn
from tunepress.text.tokenizer import Tokens

PROMPTS = ["Text: a fine day\nTone: ", "Text: über die Straße\nTone: ", "Text: 雨\nTone: "]
LABELS = ("joy", "fear", "a")


class Dice:
    """A model that ignores the context: a token is a letter with a fixed probability."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.row = np.log(np.array([weights.get(chr(code), 1e-9) for code in range(128)], dtype=np.float32))

    def encode_prompt(self, text: str) -> Tokens:
        return [ord(letter) for letter in text]

    def encode_completion(self, text: str, after: str) -> Tokens:
        return [*self.encode_prompt(text), 0]

    def logits(self, requests: Requests) -> Iterator[tuple[int, int, Logits]]:
        for index, (_, completions) in reversed(list(enumerate(requests))):
            for choice, completion in enumerate(completions):
                for start in range(0, len(completion), 3):
                    yield index, choice, np.tile(self.row, (len(completion[start : start + 3]), 1))


def whole(model: Scorer, requests: Requests) -> dict[tuple[int, int], Logits]:
    """The logits of each completion, by the index of its prompt and its own index."""
    chunks = defaultdict(list)
    for index, choice, logits in model.logits(requests):
        chunks[index, choice].append(logits)
    return {key: np.concatenate(parts) for key, parts in chunks.items()}


def turn(expected: str, rest: str = "") -> Turn:
    return Turn("row", "which?", expected + rest, expected)


def test_the_likelihoods_of_labels_are_those_worked_out_by_hand() -> None:
    # y: 0.6, n: 0.3, end: 0.1; each answer is a letter and the end
    model = Dice({"y": 0.6, "n": 0.3, "\0": 0.1})
    likelihoods = score(model, [turn("y"), turn("n"), turn("y"), turn("y")], ("n", "y"))
    np.testing.assert_allclose(np.exp(likelihoods.logprobs), [[0.03, 0.06]] * 4, rtol=1e-6)
    assert likelihoods.expected.tolist() == [1, 0, 1, 1]
    # (0.06³ · 0.03) ^ (-1/8): three answers y and one n, of two tokens each
    assert likelihoods.perplexity == pytest.approx((0.06**3 * 0.03) ** (-1 / 8), abs=1e-4)


def test_what_follows_a_label_in_the_completion_counts_for_every_label() -> None:
    likelihoods = score(Dice({"y": 0.5, "n": 0.25, "!": 0.125, "\0": 0.125}), [turn("n", "!")], ("n", "y"))
    np.testing.assert_allclose(np.exp(likelihoods.logprobs), [[0.25 / 64, 0.5 / 64]], rtol=1e-6)
    assert likelihoods.perplexity == pytest.approx((0.25 * 0.125 * 0.125) ** (-1 / 3), abs=1e-4)


def test_free_text_has_the_likelihood_of_the_expected_answer() -> None:
    likelihoods = score(Dice({"a": 0.5, "b": 0.25, "\0": 0.25}), [turn("ab"), turn("a")], None)
    np.testing.assert_allclose(np.exp(likelihoods.logprobs), [[0.5 * 0.25 * 0.25], [0.5 * 0.25]], rtol=1e-6)
    assert likelihoods.perplexity == pytest.approx((0.5 * 0.25 * 0.25 * 0.5 * 0.25) ** (-1 / 5), abs=1e-4)


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


def test_rows_keep_their_own_scores_in_whatever_order_the_model_gives_them() -> None:
    model = Dice({"a": 0.5, "b": 0.3, "c": 0.1, "\0": 0.1})
    likelihoods = score(model, [turn("aa"), turn("b"), turn("c")], ("aa", "b", "c"))
    np.testing.assert_allclose(np.exp(likelihoods.logprobs), [[0.025, 0.03, 0.01]] * 3, rtol=1e-6)
    assert likelihoods.perplexity == pytest.approx((0.025 * 0.03 * 0.01) ** (-1 / 7))


def test_the_divergence_is_of_the_second_from_the_first_and_summed_over_the_tokens() -> None:
    first = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], dtype=np.float32))
    second = np.log(np.array([[0.25, 0.5, 0.25], [0.2, 0.6, 0.2]], dtype=np.float32))
    expected = 0.25 * math.log(2) + 0.4 * math.log(3)
    same, divergence = agreement(first, second)
    assert same == 0
    assert divergence == pytest.approx(expected, abs=1e-6)
    assert agreement(first, first)[0] == 2


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7)])
def test_probabilities_are_along_the_last_axis(shape: tuple[int, ...]) -> None:
    logits = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_allclose(softmax(logits).sum(axis=-1), 1)
    np.testing.assert_allclose(np.exp(log_softmax(logits)), softmax(logits))


@pytest.fixture(scope="module")
def fp32(tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp32") / "onnx"
    build.build(recipe("fp32"), tiny_phi3, folder)
    return folder


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_torch_gives_the_logits_of_a_single_forward_pass(tiny_phi3: Path, batch_size: int) -> None:
    model = TorchModel(tiny_phi3, batch_size)
    requests = [
        (model.encode_prompt(prompt), [model.encode_completion(label, prompt) for label in LABELS]) for prompt in PROMPTS * 2
    ]
    assert_as_one_forward_pass(model, model, requests)


def test_a_full_precision_onnx_model_gives_the_logits_of_torch(tiny_phi3: Path, fp32: Path) -> None:
    merged, onnx = TorchModel(tiny_phi3, 4), OnnxModel(fp32)
    requests = [(onnx.encode_prompt(prompt), [onnx.encode_completion(label, prompt) for label in LABELS]) for prompt in PROMPTS]
    expected = whole(merged, requests)
    for (index, choice), logits in whole(onnx, requests).items():
        completion = requests[index][1][choice]
        assert logits.shape == (len(completion), 260)
        np.testing.assert_allclose(logits, expected[index, choice], atol=1e-4)
        logprobs, expected_logprobs = (token_logprobs(values, completion) for values in (logits, expected[index, choice]))
        np.testing.assert_allclose(logprobs, expected_logprobs, atol=1e-4)


@pytest.mark.parametrize("shared", [[5, 6, 7, 8, 9], [5], []])
def test_what_prompts_begin_with_is_read_once_and_changes_nothing(
    shared: list[int], fp32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = OnnxModel(fp32)
    rests = ([20, 21, 22], [20], [30, 31])
    requests = [(shared + rest, [[40, 41, 42], [43], [44, 45]][: 3 - number]) for number, rest in enumerate(rests)]
    expected = list(model.logits(requests))
    read: list[int] = []
    append = OnnxModel._read

    def recorded(self: OnnxModel, generator: Any, part: Tokens) -> None:
        read.extend(part)
        append(self, generator, part)

    monkeypatch.setattr(OnnxModel, "_read", recorded)
    for actual, (index, choice, logits) in zip(model.shared_logits(requests), expected, strict=True):
        assert actual[:2] == (index, choice)
        np.testing.assert_allclose(actual[2], logits, atol=1e-4)
    assert read == [*shared, *(token for rest in rests for token in rest)]


@pytest.mark.parametrize("text", ["joy", " joy", "", "joy<|end|>", "雨\n"])
def test_both_runtimes_end_an_answer_with_the_same_tokens(tiny_phi3: Path, fp32: Path, text: str) -> None:
    assert OnnxModel(fp32).encode_completion(text, PROMPTS[1]) == TorchModel(tiny_phi3).encode_completion(text, PROMPTS[1])


def test_a_completion_of_its_end_alone_is_scored(tiny_phi3: Path, fp32: Path) -> None:
    for model in (TorchModel(tiny_phi3), OnnxModel(fp32)):
        ((_, _, logits),) = model.logits([(model.encode_prompt("Text: "), [[0]])])
        assert logits.shape == (1, 260)


def assert_as_one_forward_pass(torch_model: TorchModel, model: Scorer, requests: Requests, atol: float = 1e-5) -> None:
    logits_by_choice = whole(model, requests)
    assert sorted(logits_by_choice) == [(index, choice) for index, (_, own) in enumerate(requests) for choice in range(len(own))]
    for index, (prompt, completions) in enumerate(requests):
        for choice, completion in enumerate(completions):
            with torch.inference_mode():
                expected = torch_model.model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].numpy()
            np.testing.assert_allclose(logits_by_choice[index, choice], expected, atol=atol)


@pytest.mark.parametrize("longest", [3, 4, 5, 8, 9, 11])
@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_the_chunks_of_a_long_completion_are_one_forward_pass(
    runtime: str, longest: int, tiny_phi3: Path, fp32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (onnx_model, torch_model):
        monkeypatch.setattr(module, "CHUNK", 4)
    monkeypatch.setattr(onnx_model, "PROMPT_CHUNK", 3)  # so the prompt too is read in parts
    reference = TorchModel(tiny_phi3, batch_size=16)
    model: Scorer = reference if runtime == "torch" else OnnxModel(fp32)
    requests = [
        (list(range(5, 12)), [list(range(20, 20 + longest)), [1], list(range(90, 96))]),
        (list(range(15, 22)), [[2], list(range(30, 30 + longest)), list(range(60, 61))]),  # as long, so in one batch with it
        ([7], [[1, 2, 3], [1], [4, 5]]),
    ]
    assert_as_one_forward_pass(reference, model, requests, atol=1e-4)
    assert max(len(logits) for _, _, logits in model.logits(requests)) <= 4


def test_many_completions_of_one_prompt_are_not_computed_in_one_batch(tiny_phi3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_model, "MAX_TOKENS", 10)
    model = TorchModel(tiny_phi3, batch_size=16)
    positions: list[int] = []
    model.model.lm_head.register_forward_hook(lambda _, __, output: positions.append(output.shape[0] * output.shape[1]))
    requests = [([3, 4, 5], [[1, 2, 3, 4]] * 2), ([3, 4, 6], [[1, 2, 3], [4]])]
    assert_as_one_forward_pass(TorchModel(tiny_phi3), model, requests)
    assert max(positions) <= 10


def test_a_completion_counts_only_as_far_as_its_row_was_learned() -> None:
    model = Dice({"y": 0.5, "n": 0.25, "\0": 0.25})
    assert len("which?") == 6
    for source_max_len, tokens in ((10, "yyn\0"), (9, "yyn"), (8, "yy"), (7, "y"), (3, "y")):
        likelihoods = score(model, [turn("yyn")], None, source_max_len)
        expected = np.prod([{"y": 0.5, "n": 0.25, "\0": 0.25}[token] for token in tokens]) ** (-1 / len(tokens))
        assert likelihoods.perplexity == pytest.approx(expected, abs=1e-4)


MEMORY = """
import resource, sys
from pathlib import Path
import tunepress
from stages.compare import compare_tokens
from tunepress.inference.scoring import score
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.torch_model import TorchModel
from tunepress.text.segments import Turn

models = {"torch": lambda: TorchModel(Path(sys.argv[2])), "onnx": lambda: OnnxModel(Path(sys.argv[3]))}
chosen = [models[name]() for name in sys.argv[1].split("+")]
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
short, long = ([Turn("row", "Text: " * 8, "x" * n, "x" * n)] for n in (150, 1000))
def measure(turns):
    compare_tokens(*chosen, turns) if len(chosen) == 2 else score(chosen[0], turns, None)
measure(short)
before = peak()
measure(long)
print((peak() - before) / 1024)
"""


@pytest.fixture(scope="module")
def wide(tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model with the vocabulary of SmolLM2 and the byte tokenizer, in torch and in onnx."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("wide")
    config = AutoConfig.from_pretrained(tiny_phi3, vocab_size=49152, max_position_embeddings=2048)
    config.original_max_position_embeddings, config.sliding_window = 2048, None
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "merged")
    AutoTokenizer.from_pretrained(tiny_phi3).save_pretrained(folder / "merged")
    build.build(recipe("fp32"), folder / "merged", folder / "onnx")
    return folder / "merged", folder / "onnx"


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torch", "onnx", "torch+onnx"])
def test_the_memory_of_a_long_answer_is_that_of_a_chunk(runtime: str, wide: tuple[Path, Path], root: Path) -> None:
    command = [sys.executable, "-c", MEMORY, runtime, *map(str, wide)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    more = float(done.stdout)  # MB that 1,000 tokens take in addition to 150
    assert more < 300  # their logits alone are 1,000 x 49,152 x 4 bytes = 188 MB, in float64 with the temporaries 2,400
    assert scoring.CHUNK < 150
