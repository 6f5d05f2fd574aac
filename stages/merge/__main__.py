"""The command `python -m stages.merge`."""

import sys

from stages.merge.stage import Config, main
from tunepress.core.stage import run

if __name__ == "__main__":
    run("merge", main, Config, sys.argv[1:])
