"""Tokens of a row, with the tiny model's byte tokenizer: one token a byte, one for each mark."""

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import processors

from tunepress.core.errors import InputError
from tunepress.models.hf_model import load_encoder, load_tokenizer
from tunepress.text.segments import Row, context, learned
from tunepress.text.tokenizer import IGNORE_INDEX, Encoder, max_answer_length, truncate

PROMPT, COMPLETION = "<|user|>\nWie schön? ", "  joy 😀"


def row(prompt: str, completion: str) -> Row:
    return {"source": "row", "segments": [context(prompt), learned(completion, completion)]}


ROW = row(PROMPT, COMPLETION)


@pytest.fixture
def encoder(tiny_phi3: Path) -> Encoder:
    return load_encoder(tiny_phi3)


@pytest.fixture
def bos_encoder(tiny_phi3: Path) -> Encoder:
    """As Llama's and Phi-3's tokenizers do, this one begins each text with BOS."""
    tokenizer = load_tokenizer(tiny_phi3)
    tokenizer.bos_token = "<|endoftext|>"
    number = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", number)]
    )
    return Encoder(tokenizer, [number])


def test_the_tokens_that_end_an_answer_are_the_models(encoder: Encoder) -> None:
    assert encoder.eos_token_ids == encoder.tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|end|>"])


@pytest.mark.parametrize("name", ["encoder", "bos_encoder"])
@pytest.mark.parametrize("prompt", ["", "a", "a ", "a\n", "é\u0301", "<|user|>"])
@pytest.mark.parametrize("completion", ["", "b", " b", "\u0301b", "b<|end|>"])
def test_an_example_begins_with_the_tokens_of_its_prompt(
    request: pytest.FixtureRequest, name: str, prompt: str, completion: str
) -> None:
    encoder: Encoder = request.getfixturevalue(name)
    example = encoder.encode_example(row(prompt, completion), 100, False)
    prompt_tokens = encoder.encode_prompt(prompt)
    assert example["input_ids"][: len(prompt_tokens)] == prompt_tokens
    assert example["input_ids"][len(prompt_tokens) :] == encoder.encode_completion(completion, prompt)


def test_an_example_says_prompt_and_completion_and_then_ends(encoder: Encoder) -> None:
    tokens = encoder.encode_example(ROW, 100, True)["input_ids"]
    assert encoder.tokenizer.decode(tokens) == PROMPT + COMPLETION + "<|endoftext|>"


def test_only_a_prompt_begins_with_bos(bos_encoder: Encoder) -> None:
    bos = bos_encoder.tokenizer.bos_token_id
    tokens = bos_encoder.encode_example(ROW, 100, True)["input_ids"]
    assert tokens[0] == bos
    assert tokens.count(bos) == 2  # and at the end, where it is EOS too
    assert tokens[-1] == bos


@pytest.mark.parametrize(
    ("completion", "ending"),
    [
        ("joy", ["y", "<|endoftext|>"]),
        ("", ["<|endoftext|>"]),
        ("joy<|end|>", ["y", "<|end|>"]),
        ("joy<|endoftext|>", ["y", "<|endoftext|>"]),
        ("joy<|assistant|>", ["<|assistant|>", "<|endoftext|>"]),
        ("<|end|> joy", ["y", "<|endoftext|>"]),
    ],
)
def test_an_answer_ends_once(encoder: Encoder, completion: str, ending: list[str]) -> None:
    tokens = encoder.encode_completion(completion, PROMPT)
    assert encoder.tokenizer.convert_ids_to_tokens(tokens)[-2:] == ending
    assert sum(token in encoder.eos_token_ids for token in tokens[-2:]) == 1


def test_the_first_of_the_ends_is_appended(encoder: Encoder) -> None:
    turned = replace(encoder, eos_token_ids=encoder.eos_token_ids[::-1])
    assert turned.tokenizer.decode(turned.encode_completion("joy", "Tone: ")) == "joy<|end|>"


def test_labels_ignore_the_prompt_only_with_completion_only_loss(encoder: Encoder) -> None:
    prompt, completion = encoder.encode_prompt(PROMPT), encoder.encode_completion(COMPLETION, PROMPT)
    only, both = encoder.encode_example(ROW, 100, True), encoder.encode_example(ROW, 100, False)
    assert only["input_ids"] == both["input_ids"] == both["labels"] == prompt + completion
    assert only["labels"] == [IGNORE_INDEX] * len(prompt) + completion


@pytest.mark.parametrize("completion_only_loss", [True, False])
@pytest.mark.parametrize("length", [1, 3, 10, 20, 25])
def test_an_overlong_example_is_cut_at_its_end(encoder: Encoder, length: int, completion_only_loss: bool) -> None:
    whole, cut = (encoder.encode_example(ROW, longest, completion_only_loss) for longest in (100, length))
    assert cut == {name: tokens[:length] for name, tokens in whole.items()}
    assert len(cut["input_ids"]) == len(cut["labels"]) == length


@pytest.mark.parametrize("length", [18, 20, 23, 25, 100])
def test_a_row_is_cut_as_it_is_learned(encoder: Encoder, length: int) -> None:
    ((prompt, completion),) = encoder.encode_segments([ROW])
    assert prompt == encoder.encode_prompt(PROMPT)
    example = encoder.encode_example(ROW, length, True)
    assert truncate(completion, prompt, length) == [label for label in example["labels"] if label != IGNORE_INDEX]
    assert truncate(completion, prompt, None) == truncate(completion, prompt, 1000)


def test_a_completion_after_a_prompt_that_fills_the_row_keeps_its_first_token() -> None:
    assert [truncate([7, 8, 9], [1] * tokens, 4) for tokens in (1, 2, 3, 4, 5)] == [[7, 8, 9], [7, 8], [7], [7], [7]]
    assert truncate([7, 8, 9], [1] * 5, None) == [7, 8, 9]


def test_an_answer_is_as_long_as_the_context_lets_it_be() -> None:
    assert [max_answer_length([1] * tokens, 8, 10) for tokens in (0, 1, 2, 3, 9)] == [8, 8, 8, 7, 1]
    assert max_answer_length([1] * 100, 8, None) == 8
    for tokens in (10, 11):
        with pytest.raises(InputError, match=f"the prompt has {tokens} tokens, .* context of 10; shorten the text"):
            max_answer_length([1] * tokens, 8, 10)


def test_an_example_of_just_the_length_is_whole(encoder: Encoder) -> None:
    whole = encoder.encode_example(ROW, 100, True)
    assert encoder.encode_example(ROW, len(whole["input_ids"]), True) == whole
