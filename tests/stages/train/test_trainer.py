"""trainer: joined examples are the examples, and the loss is the mean over all their labels."""

import copy
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    DataCollatorWithFlattening,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from stages.train.sampler import SequenceSampler
from stages.train.trainer import EMPTY, FlatteningCollator, PaddingFreeTrainer, attention_by_example, summed_loss
from tunepress.config.train import SamplingStrategy
from tunepress.models.hf_model import load_encoder, load_model
from tunepress.text.segments import context, learned
from tunepress.text.tokenizer import IGNORE_INDEX

ROWS = [
    {"segments": [context(prompt), learned(completion, completion)]}
    for prompt, completion in (
        ("The tone is: ", "joy"),
        ("A longer prompt, with words in it: ", "sadness and then some"),
        ("?", "fear"),
    )
]

Example = dict[str, list[int]]


@pytest.fixture(scope="module")
def model(tiny_phi3: Path) -> PreTrainedModel:
    return load_model(tiny_phi3).eval()


@pytest.fixture(params=[True, False], ids=["completion only", "prompt too"])
def examples(request: pytest.FixtureRequest, tiny_phi3: Path) -> list[Example]:
    encoder = load_encoder(tiny_phi3)
    return [encoder.encode_example(row, 1000, completion_only_loss=request.param) for row in ROWS]


def joined(examples: list[Example]) -> dict[str, torch.Tensor]:
    batch: dict[str, torch.Tensor] = DataCollatorWithFlattening()(examples)
    return batch


@torch.inference_mode()
def logits_of(model: PreTrainedModel, examples: list[Example]) -> list[torch.Tensor]:
    """The logits of each example of a joined batch."""
    batch = joined(examples)
    # as the Trainer runs it: with a cache, transformers takes position_ids that start over for one sequence
    logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
    return list(logits.split([len(example["input_ids"]) for example in examples]))


def alone(model: PreTrainedModel, example: Example) -> Any:
    """The model's outputs for one example, as transformers has them without any joining."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([example["input_ids"]]), labels=torch.tensor([example["labels"]]))


def label_count(example: Example) -> int:
    return sum(label != IGNORE_INDEX for label in example["labels"][1:])


def test_a_joined_batch_gives_the_logits_of_each_example_alone(model: PreTrainedModel, examples: list[Example]) -> None:
    for example, logits in zip(examples, logits_of(model, examples), strict=True):
        torch.testing.assert_close(logits, alone(model, example).logits[0], atol=1e-4, rtol=0)


def test_a_change_of_an_example_leaves_its_neighbours_logits_alone(model: PreTrainedModel, examples: list[Example]) -> None:
    changed = {**examples[1], "input_ids": [(token + 1) % 256 for token in examples[1]["input_ids"]]}
    before = logits_of(model, examples)
    after = logits_of(model, [examples[0], changed, examples[2]])
    torch.testing.assert_close(after[0], before[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(after[2], before[2], atol=1e-4, rtol=0)
    assert (after[1] - before[1]).abs().max() > 0.01


@pytest.mark.parametrize("window", [None, 4])
def test_attention_and_its_gradients_are_those_of_each_example_alone(window: int | None) -> None:
    def attention(states: torch.Tensor, boundaries: list[int]) -> list[torch.Tensor]:
        values = states.detach().requires_grad_()
        query, key, value = values
        actual, _ = attention_by_example(
            torch.nn.Module(), query, key, value, None, torch.tensor(boundaries), window, scaling=0.3
        )
        actual.square().sum().backward()
        assert values.grad is not None
        return [actual, values.grad]

    joined = torch.randn(3, 1, 4, 20, 8, generator=torch.Generator().manual_seed(0))
    actual, gradient = attention(joined, [0, 5, 18, 20])
    for start, end in pairwise([0, 5, 18, 20]):
        alone = attention(joined[:, :, :, start:end], [0, end - start])
        torch.testing.assert_close([actual[:, start:end], gradient[:, :, :, start:end]], alone)


def test_the_loss_is_the_mean_over_all_labels_of_the_batch(
    model: PreTrainedModel, examples: list[Example], tmp_path: Path
) -> None:
    trainer = make_trainer(model, tmp_path)
    counts = [label_count(example) for example in examples]
    losses = [alone(model, example).loss.item() for example in examples]
    expected = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    with torch.inference_mode():
        loss, outputs = trainer.compute_loss(model, joined(examples), return_outputs=True)
        of_larger_step = trainer.compute_loss(model, joined(examples), num_items_in_batch=2 * sum(counts))
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert of_larger_step.item() == pytest.approx(expected / 2, abs=1e-5)
    assert outputs.logits.shape[1] == sum(counts)  # the head ran only where there is something to learn


def test_the_trainer_joins_examples_without_a_cache(model: PreTrainedModel, tmp_path: Path) -> None:
    model.config.use_cache = True
    assert not make_trainer(model, tmp_path).model.config.use_cache


def test_a_batch_with_nothing_to_learn_has_no_loss(model: PreTrainedModel, examples: list[Example], tmp_path: Path) -> None:
    nothing = {**examples[0], "labels": [IGNORE_INDEX] * len(examples[0]["labels"])}
    with torch.inference_mode():
        loss = make_trainer(model, tmp_path).compute_loss(model, joined([nothing]), num_items_in_batch=7)
    assert loss.item() == 0


def make_trainer(model: PreTrainedModel, folder: Path, **arguments: Any) -> PaddingFreeTrainer:
    settings = TrainingArguments(
        output_dir=str(folder), report_to="none", use_cpu=True, disable_tqdm=True, prediction_loss_only=True, **arguments
    )
    sampler = SequenceSampler([], SamplingStrategy.random, 0, 1, 1)
    return PaddingFreeTrainer(sampler=sampler, model=model, args=settings, data_collator=DataCollatorWithFlattening())


# against plain formulas


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("window", [None, 1, 4, 12, 13])
def test_attention_is_the_softmax_over_the_earlier_tokens_of_the_example_in_the_window(window: int | None, groups: int) -> None:
    noise = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 20, 8, generator=noise, dtype=torch.float64)
    key, value = torch.randn(2, 1, 4 // groups, 20, 8, generator=noise, dtype=torch.float64)
    module = torch.nn.Module()
    module.num_key_value_groups = groups  # type: ignore[assignment]
    output, weights = attention_by_example(module, query, key, value, None, torch.tensor([0, 5, 18, 20]), window, scaling=0.3)
    example = torch.tensor([0] * 5 + [1] * 13 + [2] * 2)
    distance = torch.arange(20)[:, None] - torch.arange(20)
    visible = (example[:, None] == example) & (distance >= 0) & (distance < (window or 20))
    scores = query @ key.repeat_interleave(groups, dim=1).mT * 0.3
    expected = scores.masked_fill(~visible, -torch.inf).softmax(-1) @ value.repeat_interleave(groups, dim=1)
    torch.testing.assert_close(output, expected.transpose(1, 2))
    assert weights is None


def test_attention_without_boundaries_is_refused() -> None:
    states = torch.zeros(1, 1, 3, 2)
    with pytest.raises(ValueError, match="boundaries"):
        attention_by_example(torch.nn.Module(), states, states, states, None)


def ending_in_labels(count: int) -> Example:
    """Twenty tokens of which the last `count` are learned."""
    tokens = list(range(40, 60))
    return {"input_ids": tokens, "labels": [IGNORE_INDEX] * (20 - count) + tokens[20 - count :]}


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 19])
def test_the_head_runs_at_the_labels_and_at_four_positions_or_more(count: int, model: PreTrainedModel) -> None:
    example = ending_in_labels(count)
    with torch.inference_mode():
        loss, labels, outputs = summed_loss(model, joined([example]))
    assert labels == count
    assert outputs.logits.shape == (1, max(count, 4), 260)
    assert loss.item() == (pytest.approx(alone(model, example).loss.item() * count, rel=1e-5) if count else 0)


def test_an_empty_sequence_has_no_loss_and_no_label(model: PreTrainedModel) -> None:
    with torch.inference_mode():
        for boundaries in (False, True):
            loss, labels, _ = summed_loss(model, FlatteningCollator(boundaries)([EMPTY]))
            assert (loss.item(), labels) == (0, 0)


def test_a_cache_in_the_models_configuration_changes_no_loss(
    model: PreTrainedModel, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.config, "use_cache", True)
    with torch.inference_mode():
        loss, _, outputs = summed_loss(model, joined(examples))
    assert loss.item() == pytest.approx(
        sum(alone(model, example).loss.item() * label_count(example) for example in examples), rel=1e-5
    )
    assert outputs.past_key_values is None


# the validation loss


class Evaluated(TrainerCallback):
    """Notes what an evaluation measured, and ends the training."""

    metrics: dict[str, float]

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.metrics = kwargs["metrics"]
        control.should_training_stop = True


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_validation_loss_is_the_mean_over_all_labels_without_dropout_or_gradients(
    size: int, model: PreTrainedModel, tmp_path: Path
) -> None:
    examples = [ending_in_labels(count) for count in (1, 9, 2)]
    losses = [alone(model, example).loss.item() * label_count(example) for example in examples]
    dropping = copy.deepcopy(model).train()
    for layer in dropping.model.layers:
        layer.self_attn.attention_dropout = 0.5
    gradients: list[bool] = []
    dropping.register_forward_hook(lambda *_: gradients.append(torch.is_grad_enabled()))
    trainer = make_trainer(dropping, tmp_path, per_device_eval_batch_size=size)
    trainer.data_collator, trainer.eval_dataset = FlatteningCollator(boundaries=False), [[example] for example in examples]
    callback = Evaluated()
    trainer.add_callback(callback)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(sum(losses) / 12, rel=1e-5)
    assert gradients == [False] * len(range(0, 3, size))
    assert callback.metrics == metrics
    assert trainer.control.should_training_stop
    assert trainer.state.log_history == [metrics | {"step": 0}]


@pytest.mark.parametrize("count", [0, 1])
def test_validation_rows_with_a_label_or_without_one_have_its_loss_or_none(
    count: int, model: PreTrainedModel, tmp_path: Path
) -> None:
    trainer = make_trainer(model, tmp_path)
    trainer.data_collator, trainer.eval_dataset = FlatteningCollator(boundaries=False), [[ending_in_labels(count)]]
    expected = alone(model, ending_in_labels(count)).loss.item() if count else 0
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 4, 12, 13])
def test_each_validation_row_is_scored_by_one_process_and_all_have_as_many_batches(
    rows: int, processes: int, model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(model, tmp_path, per_device_eval_batch_size=2)
    trainer.eval_dataset = [[{"input_ids": [number], "labels": [number]}] for number in range(1, rows + 1)]
    shares = []
    for index in range(processes):  # tests/stages/train/test_processes.py starts two real ones
        monkeypatch.setattr(trainer, "accelerator", SimpleNamespace(num_processes=processes, process_index=index))
        shares.append(list(trainer.eval_batches()))
    assert {len(share) for share in shares} == {-(-rows // (2 * processes))}
    assert all(0 < len(batch) <= 2 for share in shares for batch in share)
    scored = [sequence for share in shares for batch in share for sequence in batch]
    assert sorted(sequence[0]["input_ids"][0] for sequence in scored if sequence != EMPTY) == list(range(1, rows + 1))
    assert EMPTY not in scored or processes > 1
