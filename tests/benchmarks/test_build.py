"""benchmarks.build on a tiny model: both contenders run, and make the same graph."""

from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from benchmarks.build import __main__ as build
from benchmarks.harness import parse


@pytest.mark.slow
def test_both_contenders_make_the_same_graph(tmp_path: Path) -> None:
    options = parse(build.BENCHMARK, ["--shape", "tiny"])
    measured = build.measure(options, tmp_path, Console(quiet=True))
    assert measured["compared"]["equal"] == measured["compared"]["nodes"] > 20
    assert measured["contenders"]["tunepress"]["size_mb"] > 0
    table, sentence = build.report(measured, options)
    assert isinstance(table, Table)
    assert [str(cell) for cell in table.columns[0].cells] == list(build.CONTENDERS)
    assert str(sentence) == f"{measured['compared']['nodes']} of {measured['compared']['nodes']} nodes are equal to the builder's"
