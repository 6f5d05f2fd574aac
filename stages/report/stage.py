"""report: gathers what all stages measured in metrics/summary.json, report/index.html and the model card."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from stages.report.experiments import Experiment
from stages.report.figures import CANDIDATES, Run
from stages.report.model_card import card
from stages.report.page import Findings, page
from tunepress.config.adapter import Adapter
from tunepress.config.base_model import BaseModel
from tunepress.config.benchmark import Benchmark
from tunepress.config.build import Build
from tunepress.config.data import Data
from tunepress.config.evaluate import Evaluate
from tunepress.config.merge import Merge
from tunepress.config.report import Report
from tunepress.config.train import Train
from tunepress.core.environment import Environment, current_image
from tunepress.core.files import atomic_output, read_csv, write_json
from tunepress.core.paths import ADAPTER, CHANGED, METRICS, MODEL_CARD, ONNX, PREDICTIONS, PREPARED, REPORT
from tunepress.models.provenance import hash_files
from tunepress.text.prompt import Prompt


@dataclass
class Config:
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


def main(cfg: Config) -> str:
    """Writes metrics/summary.json, metrics/speed.json, report/ and models/MODEL_CARD.md."""
    findings = gather(cfg)
    with atomic_output(REPORT) as partial:
        partial.mkdir()
        (partial / "index.html").write_text(page(findings), encoding="utf-8")
    with atomic_output(MODEL_CARD) as partial:
        partial.write_text(card(findings), encoding="utf-8")
    write_json(METRICS / "summary.json", findings.run.summary())
    container = current_image()
    write_json(METRICS / "speed.json", findings.run.speed() | ({"image": container} if container else {}))
    return f"{METRICS / 'summary.json'}, {REPORT / 'index.html'} and {MODEL_CARD}"


def gather(cfg: Config, experiments: Sequence[Experiment] = ()) -> Findings:
    """Reads what the stages made. `experiments` are other runs to stand beside this one."""
    return Findings(
        title=cfg.report.title,
        parameters=parameters(cfg),
        run=Run.read(),
        prompt=Prompt.load(PREPARED),
        predictions={name: read_csv(PREDICTIONS / f"{name}.csv") for name in CANDIDATES},
        changed=read_csv(CHANGED),
        hashes=hash_files((PREPARED, ADAPTER, ONNX)),
        experiments=experiments,
    )


def parameters(cfg: Config) -> dict[str, Any]:
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
