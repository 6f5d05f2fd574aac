"""Writes report.html, the report of the last run with all experiments beside it: `make report`.

What DVC knows of other experiments is no input of the stage `report`, whose page must be the same for the same run.
"""

import sys
from pathlib import Path

from stages.lib.edge.configuration import load
from stages.lib.edge.errors import InputError
from stages.lib.edge.outputs import replacing
from stages.lib.experiments import Experiment, experiments_of
from stages.lib.figures import Run
from stages.lib.page import page
from stages.report import Sections, gather
from tools.experiments import read

PAGE = Path("report.html")


def main() -> None:
    """The command line."""
    try:
        experiments = read_experiments(Run.read().score)
        with replacing(PAGE) as partial:
            partial.write_text(page(gather(load(Sections, []), experiments)), encoding="utf-8")
    except InputError as error:
        sys.exit(f"report: {error}")
    print(f"{PAGE}: {len(experiments)} runs side by side")


def read_experiments(score: str) -> list[Experiment]:
    """The working tree's run, and those of this branch's commits and of the experiments on them.

    Raises:
        InputError: DVC cannot tell.
    """
    return experiments_of(read(num=-1), score)


if __name__ == "__main__":
    main()
