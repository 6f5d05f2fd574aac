"""The command `python -m stages.prepare`."""

import sys

from stages.prepare.stage import Config, main
from tunepress.core.stage import run

if __name__ == "__main__":
    run("prepare", main, Config, sys.argv[1:])
