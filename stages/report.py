"""report: gathers what all stages measured in metrics/summary.json, report/index.html and the model card."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from stages.lib.edge.environment import image
from stages.lib.edge.outputs import read_csv, replacing, write_json
from stages.lib.edge.paths import ADAPTER, CHANGED, METRICS, MODEL_CARD, ONNX, PREDICTIONS, PREPARED, REPORT
from stages.lib.edge.stage import run
from stages.lib.experiments import Experiment
from stages.lib.figures import CANDIDATES, Run
from stages.lib.model_card import card
from stages.lib.page import Findings, page
from stages.lib.prompt import Prompt
from stages.lib.provenance import hashes
from stages.lib.schema.adapter import Adapter
from stages.lib.schema.base_model import BaseModel
from stages.lib.schema.benchmark import Benchmark
from stages.lib.schema.build import Build
from stages.lib.schema.data import Data
from stages.lib.schema.environment import Environment
from stages.lib.schema.evaluate import Evaluate
from stages.lib.schema.merge import Merge
from stages.lib.schema.report import Report
from stages.lib.schema.train import Train


@dataclass
class Sections:
    """What this stage reads of params.yaml: all of it."""

    base_model: BaseModel
    data: Data
    adapter: Adapter
    train: Train
    merge: Merge
    build: Build
    evaluate: Evaluate
    benchmark: Benchmark
    report: Report
    environment: Environment
    seed: int


def main(cfg: Sections) -> str:
    """Writes metrics/summary.json, metrics/speed.json, report/ and models/MODEL_CARD.md."""
    findings = gather(cfg)
    with replacing(REPORT) as partial:
        partial.mkdir()
        (partial / "index.html").write_text(page(findings), encoding="utf-8")
    with replacing(MODEL_CARD) as partial:
        partial.write_text(card(findings), encoding="utf-8")
    write_json(METRICS / "summary.json", findings.run.summary())
    container = image()
    write_json(METRICS / "speed.json", findings.run.speed() | ({"image": container} if container else {}))
    return f"{METRICS / 'summary.json'}, {REPORT / 'index.html'} and {MODEL_CARD}"


def gather(cfg: Sections, experiments: Sequence[Experiment] = ()) -> Findings:
    """Reads what the stages made. `experiments` are other runs to stand beside this one."""
    return Findings(
        title=cfg.report.title,
        parameters=parameters(cfg),
        run=Run.read(),
        prompt=Prompt.load(PREPARED),
        predictions={name: read_csv(PREDICTIONS / f"{name}.csv") for name in CANDIDATES},
        changed=read_csv(CHANGED),
        hashes=hashes((PREPARED, ADAPTER, ONNX)),
        experiments=experiments,
    )


def parameters(cfg: Sections) -> dict[str, Any]:
    """Every parameter by its full name."""
    return flat(asdict(cfg))


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value.value if isinstance(value, Enum) else value
    return found


if __name__ == "__main__":
    run("report", main, Sections, sys.argv[1:])
