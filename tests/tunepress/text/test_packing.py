"""packing: which rows are in one sequence, that none is truncated, and that they attend to each other only if configured."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel, set_seed

from stages.train import stage as train
from stages.train.trainer import BY_EXAMPLE, FlatteningCollator, summed_loss
from tests.stages.training import WEIGHTS, curve, metrics, sections
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl, write_jsonl
from tunepress.core.paths import BASE, PREPARED
from tunepress.models.hf_model import load_encoder, load_model
from tunepress.text.packing import FILE_NAME, Corpus, PackedSequence, concatenate, group_by_sequence, pack
from tunepress.text.segments import evaluated
from tunepress.text.tokenizer import IGNORE_INDEX, Example

LENGTHS = [(number * 29) % 40 + 1 for number in range(61)]
STRATEGIES = ["line-by-line", "line-by-line-random", "join", "join-random"]
ALONE = Corpus(pad_to_max_len=None, use_attention_mask=True)
SEEING = Corpus(pad_to_max_len=None, use_attention_mask=False)


def flat(assigned: list[list[int]]) -> list[int]:
    return [number for numbers in assigned for number in numbers]


# which rows are in one sequence


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_row_is_in_one_sequence_and_none_exceeds_the_limit(strategy: str) -> None:
    for limit in (40, 41, 100, 10_000):
        assigned = pack(LENGTHS, strategy, limit, None, 0)
        assert sorted(flat(assigned)) == list(range(len(LENGTHS)))
        assert all(numbers for numbers in assigned)
        assert max(sum(LENGTHS[number] for number in numbers) for numbers in assigned) <= limit


def test_line_by_line_is_a_row_a_sequence_in_their_order() -> None:
    assert pack(LENGTHS, "line-by-line", 40, None, 0) == [[number] for number in range(len(LENGTHS))]


@pytest.mark.parametrize("limit", [40, 64, 100])
def test_join_keeps_the_order_and_ends_a_sequence_only_where_the_next_row_does_not_fit(limit: int) -> None:
    assigned = pack(LENGTHS, "join", limit, None, 0)
    assert flat(assigned) == list(range(len(LENGTHS)))
    for numbers, following in pairwise(assigned):
        assert sum(LENGTHS[number] for number in numbers) + LENGTHS[following[0]] > limit


@pytest.mark.parametrize(("lengths", "expected"), [([], []), ([40], [[0]]), ([20, 20], [[0, 1]]), ([20, 21], [[0], [1]])])
def test_join_fills_a_sequence_to_the_last_token(lengths: list[int], expected: list[list[int]]) -> None:
    assert pack(lengths, "join", 40, None, 0) == expected


@pytest.mark.parametrize("strategy", ["line-by-line-random", "join-random"])
def test_a_random_order_is_that_of_the_seed(strategy: str) -> None:
    first = pack(LENGTHS, strategy, 64, None, 3)
    assert pack(LENGTHS, strategy, 64, None, 3) == first
    assert pack(LENGTHS, strategy, 64, None, 4) != first
    assert flat(first) != sorted(flat(first))
    order = flat(first)
    again = pack([LENGTHS[number] for number in order], strategy.removesuffix("-random"), 64, None, 0)
    assert [[order[number] for number in numbers] for numbers in again] == first


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_max_samples_keeps_the_first_sequences(strategy: str) -> None:
    every = pack(LENGTHS, strategy, 64, None, 0)
    assert pack(LENGTHS, strategy, 64, 5, 0) == every[:5]
    assert pack(LENGTHS, strategy, 64, len(every) + 1, 0) == every


# sequences


def example(*tokens: int) -> Example:
    return {"input_ids": list(tokens), "labels": [IGNORE_INDEX, *tokens[1:]]}


def test_prepared_rows_are_grouped_by_their_number() -> None:
    rows = [{"sequence": number, "row": row} for row, number in enumerate([0, 0, 1, 2, 2])]
    assert [[row["row"] for row in grouped] for grouped in group_by_sequence(rows)] == [[0, 1], [2], [3, 4]]


def test_the_examples_of_a_sequence_are_separate_or_one_text() -> None:
    two = [example(1, 2, 3), example(4, 5)]
    assert ALONE.sequence(two, 9) == two
    assert SEEING.sequence(two, 9) == [{"input_ids": [1, 2, 3, 4, 5], "labels": [IGNORE_INDEX, 2, 3, IGNORE_INDEX, 5]}]
    assert concatenate(two) == SEEING.sequence(two, 9)[0]


@pytest.mark.parametrize("seeing", [True, False])
def test_padding_fills_a_sequence_up_and_has_no_labels(seeing: bool) -> None:
    two = [example(1, 2, 3), example(4, 5)]
    padded = Corpus(pad_to_max_len=8, use_attention_mask=seeing).sequence(two, 9)
    assert padded[:-1] == Corpus(None, seeing).sequence(two, 9)
    assert padded[-1] == {"input_ids": [9] * 3, "labels": [IGNORE_INDEX] * 3}
    assert Corpus(5, seeing).sequence(two, 9) == Corpus(None, seeing).sequence(two, 9)


@pytest.mark.parametrize("corpus", [ALONE, SEEING, Corpus(100, True)])
def test_a_corpus_is_read_as_it_was_written(corpus: Corpus, tmp_path: Path) -> None:
    corpus.save(tmp_path)
    assert Corpus.load(tmp_path) == corpus


@pytest.mark.parametrize("content", [None, "", "[1]", "{}", '{"pad_to_max_len": null, "use_attention_mask": true, "more": 1}'])
def test_a_folder_without_a_corpus_is_refused_with_what_makes_one(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / FILE_NAME).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"corpus\.json: not made by `prepare` .*; run `make repro`$"):
        Corpus.load(tmp_path)


# what train makes of them


@pytest.fixture
def joined(inside: Path) -> Iterator[Callable[..., None]]:
    """Puts the prepared rows in sequences of so many rows, and back when the test is over."""
    path, before = PREPARED / "train.jsonl", read_jsonl(PREPARED / "train.jsonl")

    def join(rows: int, corpus: Corpus = ALONE) -> None:
        write_jsonl(path, [{**row, "sequence": number // rows} for number, row in enumerate(before)])
        corpus.save(PREPARED)

    yield join
    write_jsonl(path, before)
    ALONE.save(PREPARED)


def read(root: Path, **settings: Any) -> list[PackedSequence]:
    return train.read_examples(sections(root, **settings).train)["train"]


@torch.inference_mode()
def logits(model: Any, tokens: list[int]) -> torch.Tensor:
    """The logits of one text in an ordinary model."""
    values: torch.Tensor = model(torch.tensor([tokens])).logits[0]
    return values


@torch.inference_mode()
def logits_in(root: Path, batch: list[PackedSequence]) -> list[torch.Tensor]:
    """The logits of each example of a batch, as the model is loaded and run in training."""
    model = train.load_base(sections(root, attn_implementation=BY_EXAMPLE)).eval().cpu()
    inputs = FlatteningCollator(boundaries=True)(batch)
    del inputs["labels"]
    values: torch.Tensor = model(**inputs, use_cache=False).logits[0]
    return list(values.split([len(example["input_ids"]) for sequence in batch for example in sequence]))


@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.parametrize("corpus", [ALONE, SEEING, Corpus(1024, True), Corpus(1024, False)], ids=str)
def test_no_token_of_a_row_is_cut_or_comes_twice(rows: int, corpus: Corpus, root: Path, joined: Callable[..., None]) -> None:
    joined(rows, corpus)
    encoder = load_encoder(BASE)
    prepared = read_jsonl(PREPARED / "train.jsonl")
    turns = evaluated(prepared, all_turns=True)
    completions = [encoder.encode_completion(turn.completion, turn.prompt) for turn in turns]
    tokens = [encoder.encode_prompt(turn.prompt) + completion for turn, completion in zip(turns, completions, strict=True)]
    learned = [label for completion in completions for label in completion]
    read_sequences = read(root)
    assert len(read_sequences) == math.ceil(16 / rows)
    for number, sequence in enumerate(read_sequences):
        input_ids = [token for example in sequence for token in example["input_ids"]]
        expected = [token for row in tokens[number * rows : (number + 1) * rows] for token in row]
        assert input_ids[: len(expected)] == expected
        assert len(input_ids) == (corpus.pad_to_max_len or len(expected))
        assert set(input_ids[len(expected) :]) <= {encoder.tokenizer.pad_token_id}
    labels = [label for sequence in read_sequences for example in sequence for label in example["labels"]]
    assert [label for label in labels if label != IGNORE_INDEX] == learned


def test_joined_examples_do_not_see_each_other(root: Path, joined: Callable[..., None]) -> None:
    joined(4)
    model = load_model(BASE).eval()
    batch = read(root)[:2]
    examples = [example for sequence in batch for example in sequence]
    assert len(examples) == 8
    for example, values in zip(examples, logits_in(root, batch), strict=True):
        torch.testing.assert_close(values, logits(model, example["input_ids"]), atol=1e-5, rtol=0)


def test_without_the_mask_an_example_sees_those_before_it_as_one_text(root: Path, joined: Callable[..., None]) -> None:
    joined(4)
    alone = read(root)[:2]
    joined(4, SEEING)
    batch = read(root)[:2]
    model = load_model(BASE).eval()
    for apart, sequence, values in zip(alone, batch, logits_in(root, batch), strict=True):
        (text,) = sequence
        assert text == concatenate(apart)
        torch.testing.assert_close(values, logits(model, text["input_ids"]), atol=1e-5, rtol=0)
        first, second = apart[:2]
        start, end = len(first["input_ids"]), len(first["input_ids"]) + len(second["input_ids"])
        torch.testing.assert_close(values[:start], logits(model, first["input_ids"]), atol=1e-5, rtol=0)
        assert (values[start:end] - logits(model, second["input_ids"])).abs().max() > 0.01


def trained(root: Path, **settings: Any) -> tuple[dict[int, float], dict[str, torch.Tensor]]:
    """Losses and adapter of a training in the order of the rows, with SGD: Adam would blow rounding up to a step's size."""
    defaults: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.1, "train_sampling_strategy": "sequential"}
    train.main(sections(root, **(defaults | settings)))
    return curve("train/loss"), load_file(WEIGHTS)


def assert_same(first: tuple[Any, dict[str, torch.Tensor]], second: tuple[Any, dict[str, torch.Tensor]]) -> None:
    assert first[0] == pytest.approx(second[0], abs=1e-5)
    assert first[1].keys() == second[1].keys()
    for name, tensor in first[1].items():
        torch.testing.assert_close(tensor, second[1][name], atol=1e-6, rtol=1e-3)


def test_join_learns_what_line_by_line_learns_from_the_same_rows(root: Path, joined: Callable[..., None]) -> None:
    single = trained(root)
    assert metrics()["steps"] == 4
    joined(4)
    assert_same(trained(root, per_device_train_batch_size=1), single)
    joined(2)
    assert_same(trained(root, per_device_train_batch_size=2), single)


@pytest.mark.parametrize("seeing", [True, False], ids=["apart", "one text"])
def test_padding_changes_neither_the_losses_nor_the_adapter(seeing: bool, root: Path, joined: Callable[..., None]) -> None:
    joined(2, Corpus(None, seeing))
    plain = trained(root, per_device_train_batch_size=2)
    joined(2, Corpus(200, seeing))
    assert {sum(len(example["input_ids"]) for example in sequence) for sequence in read(root)} == {200}
    assert_same(trained(root, per_device_train_batch_size=2), plain)


def test_examples_that_see_each_other_are_learned_otherwise(root: Path, joined: Callable[..., None]) -> None:
    joined(4)
    apart = trained(root, per_device_train_batch_size=1)
    joined(4, SEEING)
    assert trained(root, per_device_train_batch_size=1)[0] != pytest.approx(apart[0], abs=1e-3)


def test_validation_rows_are_never_packed(root: Path, joined: Callable[..., None]) -> None:
    joined(4, Corpus(1024, False))
    validation = train.read_examples(sections(root).train)["validation"]
    assert [len(sequence) for sequence in validation] == [1] * 6
    assert max(len(sequence[0]["input_ids"]) for sequence in validation) < 100


# attention by example


def llama(**changed: Any) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=260, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    set_seed(0)
    return LlamaForCausalLM._from_config(config, **changed)


@pytest.fixture(params=["phi3", "phi3 with a window of 8", "llama"])
def made(request: pytest.FixtureRequest, tiny_phi3: Path) -> Callable[[str], PreTrainedModel]:
    """Makes the same model with one attention or another."""

    def make(attention: str) -> PreTrainedModel:
        if request.param == "llama":
            return llama(attn_implementation=attention)
        window = {"sliding_window": 8} if "window" in request.param else {}
        return AutoModelForCausalLM.from_pretrained(tiny_phi3, attn_implementation=attention, **window)

    return make


def learned(model: PreTrainedModel, boundaries: bool) -> dict[str, torch.Tensor]:
    """Loss and gradients of LoRA weights for a joined batch of unlike lengths, one of them a single token."""
    set_seed(1)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights="gaussian"))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    numbers = Random(2)
    texts = [[numbers.randrange(256) for _ in range(length)] for length in (13, 1, 30, 5, 9)]
    batch = [[{"input_ids": text, "labels": [IGNORE_INDEX, IGNORE_INDEX, *text[2:]][: len(text)]} for text in texts]]
    total, count, _ = summed_loss(adapted.train(), FlatteningCollator(boundaries)(batch))
    assert count == 11 + 28 + 3 + 7
    total.backward()
    return {"loss": total.detach()} | {name: p.grad for name, p in adapted.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_by_example_gives_the_loss_and_gradients_of_transformers_own(
    attention: str, made: Callable[[str], PreTrainedModel]
) -> None:
    actual, expected = learned(made(BY_EXAMPLE), boundaries=True), learned(made(attention), boundaries=False)
    assert actual.keys() == expected.keys()
    assert len(actual) > 16
    for name, tensor in actual.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-4, rtol=1e-4)
        assert tensor.any()


def test_a_window_shorter_than_an_example_is_kept(tiny_phi3: Path) -> None:
    narrow = AutoModelForCausalLM.from_pretrained(tiny_phi3, attn_implementation=BY_EXAMPLE, sliding_window=8)
    wide = AutoModelForCausalLM.from_pretrained(tiny_phi3, attn_implementation=BY_EXAMPLE)
    assert abs(learned(narrow, True)["loss"] - learned(wide, True)["loss"]) > 1e-3


def test_attention_by_example_without_boundaries_is_an_error(tiny_phi3: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_phi3, attn_implementation=BY_EXAMPLE)
    with pytest.raises(ValueError, match=r"needs the boundaries of FlatteningCollator"):
        model(torch.tensor([[1, 2]]))
