"""The command `python -m stages.benchmark`."""

import sys
from functools import partial

from stages.benchmark.stage import MODELS, Config, main
from tunepress.core.stage import run

if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in MODELS:
        sys.exit(f"benchmark: name a model: python -m stages.benchmark {{{','.join(MODELS)}}}")
    run(f"benchmark_{sys.argv[1]}", partial(main, sys.argv[1]), Config, sys.argv[2:])
