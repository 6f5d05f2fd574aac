"""The command `python -m stages.train`."""

import sys

from stages.train.stage import Config, main
from tunepress.core.stage import run

if __name__ == "__main__":
    run("train", main, Config, sys.argv[1:])
