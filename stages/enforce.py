"""enforce: fails the pipeline where `judge` found a bound of evaluate.gate broken.

It stands behind the report, which is so written in any case. In an experiment it only tells: DVC keeps no experiment of
which a stage failed, and that one is wanted for comparison.
"""

import os
import sys
from dataclasses import dataclass

from stages.report.gate import Verdict
from tunepress.core.errors import InputError
from tunepress.core.files import read_json
from tunepress.core.paths import METRICS
from tunepress.core.stage import run

EXPERIMENT = "DVC_EXP_BASELINE_REV"  # which `dvc exp run` sets, and `dvc repro` doesn't


@dataclass
class Config:
    """What this stage reads of params.yaml: nothing."""


def main(cfg: Config) -> str:
    """Raises InputError if a bound failed, unless this is an experiment."""
    bounds = [Verdict(**bound) for bound in read_json(METRICS / "gate.json")["bounds"]]
    failed = "; ".join(str(bound) for bound in bounds if not bound.passed)
    if failed and EXPERIMENT not in os.environ:
        raise InputError(failed)
    return f"not passed: {failed}" if failed else f"{len(bounds)} bounds kept"


if __name__ == "__main__":
    run("enforce", main, Config, sys.argv[1:])
