"""benchmarks.build on a tiny model: both contenders run, and make the same graph."""

from pathlib import Path

from rich.console import Console

from benchmarks import build


def test_both_contenders_make_the_same_graph(tmp_path: Path) -> None:
    measured = build.measure(Console(quiet=True), tmp_path, "tiny")
    assert measured["compared"]["equal"] == measured["compared"]["nodes"] > 20
    assert measured["contenders"]["tunepress"]["size_mb"] > 0
    shown = build.table(measured)
    assert [str(cell) for cell in shown.columns[0].cells] == list(build.CONTENDERS)
