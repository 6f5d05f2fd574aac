"""Prints the hash of each output that has to be the same again, one a line, from a dvc.lock.

    python -m tools.hashes [DVC_LOCK]

Left out is what tells seconds, which differ from run to run: the benchmarks, and the report and the model card that show them.
"""

import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

VARYING = ("metrics/benchmark", "metrics/speed.json", "models/MODEL_CARD.md", "report")


def main() -> None:
    """The command line."""
    lock = Path(sys.argv[1] if len(sys.argv) > 1 else "dvc.lock")
    if not lock.exists():
        sys.exit(f"{lock}: not found; run `make repro`")
    for path, digest in hashes(lock).items():
        print(digest, path)


def hashes(lock: Path) -> dict[str, str]:
    """The hashes of a dvc.lock by path, sorted."""
    stages: Any = OmegaConf.to_container(OmegaConf.load(lock), resolve=False)
    outputs = {out["path"]: out["md5"] for stage in stages["stages"].values() for out in stage.get("outs", [])}
    return {path: digest for path, digest in sorted(outputs.items()) if not path.startswith(VARYING)}


if __name__ == "__main__":
    main()
