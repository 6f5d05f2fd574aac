"""The command `python -m stages.build`."""

import sys

from stages.build.stage import Config, main
from tunepress.core.stage import run

if __name__ == "__main__":
    run("build", main, Config, sys.argv[1:])
