"""Prints the hash of each output that has to be the same again, one a line, from a dvc.lock.

    python -m tools.hashes [DVC_LOCK]

Left out is what tells seconds, which differ from run to run: the benchmarks, and the report and the model card that show them.
"""

import sys
from pathlib import Path
from typing import Any

from stages.lib.edge.configuration import read_yaml
from stages.lib.edge.errors import InputError

VARYING = ("metrics/benchmark", "metrics/speed.json", "models/MODEL_CARD.md", "report")


def main() -> None:
    """The command line."""
    lock = Path(sys.argv[1] if len(sys.argv) > 1 else "dvc.lock")
    if not lock.exists():
        sys.exit(f"{lock}: not found; run `make repro`")
    try:
        found = hashes(lock)
    except InputError as error:
        sys.exit(str(error))
    for path, digest in found.items():
        print(digest, path)


def hashes(lock: Path) -> dict[str, str]:
    """The hashes of a dvc.lock by path, sorted.

    Raises:
        InputError: it is not a dvc.lock.
    """
    content: Any = read_yaml(lock)
    try:
        outputs = {out["path"]: out["md5"] for stage in content["stages"].values() for out in stage.get("outs", [])}
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{lock}: not what DVC writes ({type(error).__name__}: {error}); restore it from git") from error
    return {path: digest for path, digest in sorted(outputs.items()) if not path.startswith(VARYING)}


if __name__ == "__main__":
    main()
