"""`python -m stages.evaluate onnx`: what dvc.yaml runs."""

import sys
from functools import partial

from stages.evaluate.stage import CANDIDATES, Config, main
from tunepress.core.stage import run

if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in CANDIDATES:
        sys.exit(f"evaluate: name a candidate: python -m stages.evaluate {{{','.join(CANDIDATES)}}}")
    run(f"evaluate_{sys.argv[1]}", partial(main, sys.argv[1]), Config, sys.argv[2:])
