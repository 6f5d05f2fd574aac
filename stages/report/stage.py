"""report: collects what all stages measured in metrics/summary.json, report/index.html and the model card."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from stages.report.experiments import Experiment
from stages.report.figures import CANDIDATES, Run
from stages.report.gate import verdicts
from stages.report.model_card import card
from stages.report.page import Findings, page
from tunepress.config.params import Params
from tunepress.core.environment import current_image
from tunepress.core.files import atomic_output, read_csv, read_jsonl, sha256, write_json
from tunepress.core.keys import flatten
from tunepress.core.paths import ADAPTER, CHANGED, METRICS, MODEL_CARD, ONNX, PREDICTIONS, PREPARED, REPORT, TRAINING_ROWS
from tunepress.core.pipeline import commands
from tunepress.remote.collected import LISTS, remote_lists
from tunepress.text.prompt import Prompt

Config = Params
LEARNED = 3  # training rows that the report shows


def main(cfg: Config) -> str:
    """Writes metrics/summary.json, metrics/speed.json, report/ and models/MODEL_CARD.md."""
    findings = gather(cfg)
    with atomic_output(REPORT) as partial:
        partial.mkdir()
        (partial / "index.html").write_text(page(findings), encoding="utf-8")
    with atomic_output(MODEL_CARD) as partial:
        partial.write_text(card(findings), encoding="utf-8")
    broken = [str(verdict) for verdict in findings.verdicts if not verdict.passed]
    write_json(METRICS / "summary.json", findings.run.summary(broken))
    container = current_image()
    write_json(METRICS / "speed.json", findings.run.speed() | ({"image": container["name"]} if container else {}))
    return f"{METRICS / 'summary.json'}, {REPORT / 'index.html'} and {MODEL_CARD}"


def gather(cfg: Config, experiments: Sequence[Experiment] = ()) -> Findings:
    """Reads what the stages made. `experiments` are other runs to compare with."""
    run = Run.read()
    return Findings(
        title=cfg.report.title,
        parameters=parameters(cfg),
        run=run,
        prompt=Prompt.load(PREPARED),
        predictions={name: read_csv(PREDICTIONS / f"{name}.csv") for name in CANDIDATES},
        changed=read_csv(CHANGED),
        baselines=read_csv(PREDICTIONS / "baselines.csv"),
        verdicts=verdicts(cfg.gate, run),
        commands=list(commands(remote_lists(*(getattr(cfg.data, name) for name in LISTS))).values()),
        hashes=hash_files((PREPARED, ADAPTER, ONNX)),
        experiments=experiments,
        learned=read_jsonl(TRAINING_ROWS)[:LEARNED],
    )


def hash_files(places: Iterable[Path]) -> dict[str, str]:
    """The sha256 of each file, and of each file in a folder, by its path."""
    files = [file for place in places for file in (sorted(place.rglob("*")) if place.is_dir() else [place]) if file.is_file()]
    return {file.as_posix(): sha256(file) for file in files}


def parameters(cfg: Config) -> dict[str, Any]:
    """Every parameter by its full name."""
    return {key: plain(value) for key, value in flatten(asdict(cfg)).items()}


def plain(value: Any) -> Any:
    """A value without enums, as in params.yaml."""
    if isinstance(value, list):
        return list(map(plain, value))
    return value.value if isinstance(value, Enum) else value
