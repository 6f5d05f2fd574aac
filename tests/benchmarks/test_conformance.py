"""The conformance benchmark: what it prints of its figures, and that the tolerance separates what it measured."""

from argparse import Namespace

from rich.console import Console

from benchmarks import conformance
from benchmarks.harness import RESULTS
from tunepress.core.files import read_json
from tunepress.inference.conformance import OF_LABELS, OF_TEXTS

PASSING, FAILING = [name for name in conformance.BUILDS if name != conformance.SHIPPED]


def test_each_build_has_its_line() -> None:
    changed = {"prompts": 30, "different": 2, "changes": [0.001, 0.0625]}
    console = Console(width=100)
    with console.capture() as shown:
        for part in conformance.report({"models": {"labels": {PASSING: changed}}}, Namespace()):
            console.print(part)
    assert "2 of 30" in shown.get()
    assert "0.062" in shown.get()


def test_what_was_measured_lies_on_both_sides_of_the_tolerance() -> None:
    models = read_json(RESULTS / "conformance.json")["models"]
    for kind, tolerance in (("labels", OF_LABELS), ("free text", OF_TEXTS)):
        for build, passes in ((PASSING, True), (FAILING, False)):
            changed = models[kind][build]
            enough = changed["different"] <= (1 - tolerance.answers) * changed["prompts"]
            assert (changed["changes"][-1] <= tolerance.probability and enough) == passes, (kind, build)
