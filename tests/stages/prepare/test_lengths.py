"""Lengths as figures: every row is in one bin, and the bins are whole tokens."""

from itertools import pairwise

import pytest

from stages.prepare.stage import BINS, histogram, summarize


@pytest.mark.parametrize("lengths", [[7], [7, 7, 7], [1, 20], [1, 21], [1, 22], list(range(5, 400)), [3, 3, 256]])
def test_every_row_is_in_one_of_few_bins(lengths: list[int]) -> None:
    actual = histogram(lengths)
    edges, counts = actual["edges"], actual["counts"]
    assert sum(counts) == len(lengths)
    assert len(edges) == len(counts) + 1 <= BINS + 1
    assert edges[0] == min(lengths)
    assert edges[-2] <= max(lengths) < edges[-1]
    assert len({after - before for before, after in pairwise(edges)}) == 1
    for place, count in enumerate(counts):
        assert count == sum(edges[place] <= length < edges[place + 1] for length in lengths)


def test_the_summary_is_worked_out_by_hand() -> None:
    assert summarize([4, 1, 3, 2]) == {"min": 1, "median": 2.5, "max": 4, "sum": 10}
