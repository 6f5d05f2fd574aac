"""The command `python -m stages.report`."""

import sys

from stages.report.stage import Config, main
from tunepress.core.stage import run

if __name__ == "__main__":
    run("report", main, Config, sys.argv[1:])
