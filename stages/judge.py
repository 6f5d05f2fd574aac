"""judge: holds what was measured against the bounds of evaluate.gate. `enforce`, behind the report, fails where one failed."""

import sys
from dataclasses import asdict, dataclass
from typing import Any

from stages.report.gate import latency_ratio, verdicts
from tunepress.config.evaluate import Evaluate
from tunepress.core.files import read_json, write_json
from tunepress.core.paths import METRICS
from tunepress.core.stage import run


@dataclass
class Config:
    """What this stage reads of params.yaml."""

    evaluate: Evaluate


def main(cfg: Config) -> str:
    """Writes metrics/gate.json."""
    evaluate = {name: read_json(METRICS / "evaluate" / f"{name}.json") for name in ("base", "merged", "onnx")}
    rest: dict[str, Any] = {
        "size_mb": read_json(METRICS / "build.json")["size_mb"],
        "latency_ratio": latency_ratio({name: read_json(METRICS / "benchmark" / f"{name}.json") for name in ("merged", "onnx")}),
    }
    found = verdicts(cfg.evaluate.gate, evaluate, read_json(METRICS / "compare.json"), rest)
    failed = [verdict for verdict in found if not verdict.passed]
    write_json(METRICS / "gate.json", {"passed": not failed, "bounds": [asdict(verdict) for verdict in found]})
    return f"{len(found) - len(failed)} of {len(found)} bounds kept"


if __name__ == "__main__":
    run("judge", main, Config, sys.argv[1:])
