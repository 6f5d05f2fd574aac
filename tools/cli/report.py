"""Writes report.html, the report of the last run with a comparison of all experiments: `make report`.

Other experiments are not an input of the stage `report`, whose page must be the same for the same run.
"""

import sys
from pathlib import Path

from stages.report.experiments import Experiment, experiments_of
from stages.report.figures import Run
from stages.report.page import page
from stages.report.stage import Config, gather
from tools.cli.experiments import read
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output
from tunepress.core.params import load

PAGE = Path("report.html")


def main() -> None:
    try:
        experiments = read_experiments(Run.read().score)
        with atomic_output(PAGE) as partial:
            partial.write_text(page(gather(load(Config, []), experiments)), encoding="utf-8")
    except InputError as error:
        sys.exit(f"report: {error}")
    print(f"{PAGE}: {len(experiments)} runs side by side")


def read_experiments(score: str) -> list[Experiment]:
    """Reads the runs of the working tree, of this branch's commits and of the experiments based on them.

    Raises:
        InputError: DVC cannot read them.
    """
    return experiments_of(read(num=-1), score)


if __name__ == "__main__":
    main()
