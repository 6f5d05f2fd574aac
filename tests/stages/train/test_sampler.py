"""sampler: every sequence once an epoch, another order each epoch, the same one for the same seed."""

from typing import Any

import pytest

from stages.train.sampler import SequenceSampler
from tunepress.config.train import SamplingStrategy

LENGTHS = [(number * 37) % 101 + 1 for number in range(50)]
STRATEGIES = list(SamplingStrategy)
SHUFFLED = [SamplingStrategy.random, SamplingStrategy.group_by_length]


def make_sampler(
    strategy: SamplingStrategy = SamplingStrategy.random, seed: int = 0, batch_size: int = 4, processes: int = 1
) -> SequenceSampler:
    return SequenceSampler(LENGTHS, strategy, seed, batch_size, processes)


def epoch(ordered: SequenceSampler, number: int) -> list[int]:
    ordered.set_epoch(number)
    return list(ordered)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_every_sequence_comes_once_in_each_epoch(strategy: SamplingStrategy) -> None:
    ordered = make_sampler(strategy)
    for number in range(3):
        assert sorted(epoch(ordered, number)) == list(range(50))
    assert len(ordered) == 50


@pytest.mark.parametrize("strategy", SHUFFLED, ids=str)
def test_each_epoch_and_each_seed_has_an_order_of_its_own(strategy: SamplingStrategy) -> None:
    actual = [epoch(make_sampler(strategy, seed), number) for seed in range(3) for number in range(3)]
    assert all(indices != other for number, indices in enumerate(actual) for other in actual[:number])
    assert all(indices != sorted(indices) for indices in actual)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_the_same_seed_and_epoch_give_the_same_order_whatever_came_before(strategy: SamplingStrategy) -> None:
    ordered = make_sampler(strategy, seed=5)
    later = [epoch(ordered, number) for number in range(4)][3]
    assert epoch(make_sampler(strategy, seed=5), 3) == later == list(ordered)


def test_sequential_is_the_order_of_the_rows() -> None:
    assert epoch(make_sampler(SamplingStrategy.sequential), 2) == list(range(50))


@pytest.mark.parametrize("seed", range(3))
def test_batches_grouped_by_length_hold_sequences_of_like_length(seed: int) -> None:
    lengths = [(number * 37) % 401 + 1 for number in range(400)]

    def spread(strategy: SamplingStrategy) -> float:
        """The mean difference of the longest and the shortest sequence of a batch."""
        actual = [lengths[number] for number in epoch(SequenceSampler(lengths, strategy, seed, 4, 1), 0)]
        batches = [actual[at : at + 4] for at in range(0, 400, 4)]
        return sum(max(batch) - min(batch) for batch in batches) / len(batches)

    assert spread(SamplingStrategy.group_by_length) < spread(SamplingStrategy.random) / 10


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize(
    ("processes", "batch_size", "filling"), [(2, 4, 6), (2, 5, 0), (3, 4, 10), (2, 1, 0), (1, 4, 0), (1, 7, 0)]
)
def test_empty_sequences_complete_the_last_step_of_several_processes(
    strategy: SamplingStrategy, processes: int, batch_size: int, filling: int
) -> None:
    ordered = make_sampler(strategy, batch_size=batch_size, processes=processes)
    numbers = epoch(ordered, 1)
    assert len(numbers) == len(ordered) == 50 + filling
    assert numbers[50:] == [50] * filling  # the number behind the last
    assert numbers[:50] == epoch(make_sampler(strategy, batch_size=batch_size), 1)  # the same order for any number of processes
    assert processes == 1 or len(numbers) % (batch_size * processes) == 0


def test_the_trainer_tells_which_epoch_begins_a_resumed_one_included() -> None:
    ordered = make_sampler()
    output = ordered.callback()
    for message, number in ((None, 0), (0.0, 0), (1.0, 1), (1.75, 1), (2.0, 2)):
        state: Any = type("State", (), {"epoch": message})
        output.on_epoch_begin(None, state, None)
        assert ordered.epoch == number
