"""report: gathers the figures of all stages in metrics/summary.json, report/index.html and the model card."""

import csv
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from stages.lib import plots
from stages.lib.answers import INVALID
from stages.lib.edge.outputs import replacing, write_json
from stages.lib.edge.paths import LOSS_CURVES, METRICS, MODEL_CARD, PREDICTIONS, PREPARED, REPORT
from stages.lib.edge.stage import run
from stages.lib.figures import CANDIDATES, Run
from stages.lib.prompt import Prompt
from stages.lib.schema.adapter import Adapter
from stages.lib.schema.base_model import BaseModel
from stages.lib.schema.build import Build
from stages.lib.schema.merge import Merge
from stages.lib.schema.report import Report
from stages.lib.schema.train import Train

Rows = list[dict[str, str]]


@dataclass
class Sections:
    """What this stage reads of params.yaml."""

    base_model: BaseModel
    adapter: Adapter
    train: Train
    merge: Merge
    build: Build
    report: Report
    seed: int


def main(cfg: Sections) -> str:
    """Writes metrics/summary.json, report/ and models/MODEL_CARD.md."""
    figures, prompt = Run.read(), Prompt.load(PREPARED)
    predictions = {name: read_csv(PREDICTIONS / f"{name}.csv") for name in CANDIDATES}
    content = facts(cfg, figures, prompt)
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    html = pages.get_template("report.html.jinja").render(
        content, plots=draw(figures, predictions, prompt), changed=changed(predictions["merged"], predictions["onnx"])
    )
    card = pages.get_template("model_card.md.jinja").render(content)
    with replacing(REPORT) as partial:
        partial.mkdir()
        (partial / "index.html").write_text(html, encoding="utf-8")
    with replacing(MODEL_CARD) as partial:
        partial.write_text(card, encoding="utf-8")
    write_json(METRICS / "summary.json", figures.summary())
    return f"{METRICS / 'summary.json'}, {REPORT / 'index.html'} and {MODEL_CARD}"


def facts(cfg: Sections, figures: Run, prompt: Prompt) -> dict[str, Any]:
    """What both the report and the model card tell."""
    score, onnx = figures.score, figures.evaluate["onnx"]
    rows = [
        {
            "name": name,
            "figures": [figures.evaluate[name][key] for key in figures.names],
            "interval": (figures.evaluate[name][f"{score}_low"], figures.evaluate[name][f"{score}_high"]),
        }
        for name in CANDIDATES
    ]
    verdict = (
        f"{score} {onnx[score]:.3f} as {cfg.build.precision} ONNX, {figures.evaluate['merged'][score]:.3f} before the "
        f"weights were rounded and {figures.evaluate['base'][score]:.3f} before training."
    )
    recipe = {
        "base_model": cfg.base_model.name,
        **{f"adapter.{name}": value for name, value in vars(cfg.adapter).items()},
        **{f"train.{name}": value for name, value in vars(cfg.train).items()},
        "merge.base": cfg.merge.base,
        **{f"build.{name}": value for name, value in vars(cfg.build).items()},
        "seed": cfg.seed,
    }
    recipe |= {name: value.value for name, value in recipe.items() if isinstance(value, Enum)}
    return {
        "title": cfg.report.title,
        "base_model": cfg.base_model.repo_id or cfg.base_model.name,
        "license": cfg.base_model.license,
        "level": f"{onnx['confidence_level']:.0%}",
        "verdict": verdict,
        "score": score,
        "names": figures.names,
        "rows": rows,
        "per_class": onnx.get("per_class", {}),
        "test_rows": onnx["rows"],
        "size_mb": figures.build["size_mb"],
        "prepare": figures.prepare,
        "recipe": recipe,
        "prompt": prompt.prompt,
        "labels": prompt.labels,
        "max_new_tokens": prompt.max_new_tokens,
    }


def draw(figures: Run, predictions: dict[str, Rows], prompt: Prompt) -> dict[str, Any]:
    """The plots of the report as SVG."""
    score, evaluated = figures.score, figures.evaluate
    bounds = [(evaluated[name][f"{score}_low"], evaluated[name][f"{score}_high"]) for name in CANDIDATES]
    drawn: dict[str, Any] = {
        "scores": plots.scores(CANDIDATES, [evaluated[name][score] for name in CANDIDATES], bounds, score),
        "loss": plots.loss_curves(read_curve("train/loss"), read_curve("eval/loss")),
        "confusion": [],
    }
    if prompt.labels:
        for name, rows in predictions.items():
            said = [row["predicted"] for row in rows]
            labels = [*prompt.labels, *([INVALID] if INVALID in said else [])]
            drawn["confusion"].append(plots.confusion([row["expected"] for row in rows], said, labels, name))
    return drawn


def changed(merged: Rows, onnx: Rows) -> list[dict[str, str]]:
    """Rows that the two models answer differently."""
    return [
        {**one, "merged": one["predicted"], "onnx": other["predicted"]}
        for one, other in zip(merged, onnx, strict=True)
        if one["predicted"] != other["predicted"]
    ]


def read_csv(path: Path) -> Rows:
    """Rows of a CSV file as mappings."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_curve(name: str) -> list[tuple[int, float]]:
    """A loss curve of DVCLive as (step, value); empty if it was not logged."""
    path = LOSS_CURVES / f"{name}.tsv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file, delimiter="\t")]


if __name__ == "__main__":
    run("report", main, Sections, sys.argv[1:])
