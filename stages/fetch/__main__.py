"""The command `python -m stages.fetch`."""

import sys

from stages.fetch.stage import Config, main
from tunepress.core.stage import run

if __name__ == "__main__":
    run("fetch", main, Config, sys.argv[1:])
