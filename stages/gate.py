"""gate: fails the pipeline if the model breaks a bound of `gate` in params.yaml.

It runs last, so the report is written in any case. In an experiment it only reports: DVC does not keep an experiment in which
a stage failed, and this one is needed for comparison.
"""

import os
import sys
from dataclasses import dataclass

from tunepress.core.errors import InputError
from tunepress.core.files import read_json
from tunepress.core.paths import METRICS
from tunepress.core.stage import run

PASSED = "passed"  # what metrics/summary.json says if no bound is broken; otherwise it lists those that are
EXPERIMENT = "DVC_EXP_BASELINE_REV"  # set by `dvc exp run` and not by `dvc repro`


@dataclass
class Config:
    """What this stage reads of params.yaml: nothing."""


def main(cfg: Config) -> str:
    """Raises InputError if a bound is broken, unless this is an experiment."""
    message = broken_bounds()
    if message and EXPERIMENT not in os.environ:
        raise InputError(message)
    return f"not passed: {message}" if message else PASSED


def broken_bounds() -> str:
    """Each broken bound of metrics/summary.json in words; empty if all are kept."""
    gate = read_json(METRICS / "summary.json")["gate"]
    return "" if gate == PASSED else "; ".join(map(in_words, gate.split(", ")))


def in_words(broken: str) -> str:
    """`max_drop 0.08 > 0.05` as a sentence."""
    name, value, sign, bound = broken.split()
    difference = abs(float(value) - float(bound))
    return f"gate.{name}: {value} is {difference:.4g} {'below' if sign == '<' else 'over'} the bound of {bound}"


if __name__ == "__main__":
    run("gate", main, Config, sys.argv[1:])
