"""The command `python -m stages.train`."""

import sys

from stages.train.stage import Sections, main
from tunepress.core.stage import run

if __name__ == "__main__":
    run("train", main, Sections, sys.argv[1:])
