"""The report as one HTML page, which loads nothing from the network."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from stages.report import examples, plots, tables
from stages.report.calibration import bins_of
from stages.report.experiments import Experiment
from stages.report.figures import CANDIDATES, TIMED, Run
from stages.report.gate import Verdict
from tunepress.core.environment import current_image, installed_versions
from tunepress.core.paths import LOSS_CURVES
from tunepress.inference.metrics import is_right, mcnemar
from tunepress.text.prompt import Prompt

MINUS = "\N{MINUS SIGN}"
TEMPLATES = Path(__file__).parent / "templates"

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Findings:
    """What the report and the model card show.

    Attributes:
        title: of the report.
        parameters: by full name, as `train.learning_rate`.
        run: the figures of all stages.
        prompt: how a row becomes a prompt.
        predictions: of each candidate, row by row.
        changed: rows that merged and onnx answer differently.
        baselines: the expected answer of each row, and that of each baseline by its name.
        verdicts: of the gate.
        commands: of all stages, in the order in which DVC runs them.
        hashes: sha256 by path of what went in and of what is shipped.
        experiments: other runs to compare with; may be empty.
        learned: some training rows, as segments.
    """

    title: str
    parameters: dict[str, Any]
    run: Run
    prompt: Prompt
    predictions: dict[str, Rows]
    changed: Rows
    baselines: Rows
    verdicts: Sequence[Verdict]
    commands: Sequence[str]
    hashes: dict[str, str]
    experiments: Sequence[Experiment] = ()
    learned: Sequence[Mapping[str, Any]] = ()

    @property
    def verdict(self) -> str:
        """The score after int4, after training and before training, in a sentence."""
        base, merged, onnx = map(self.run.score_of, CANDIDATES)
        best = self.run.best_baseline
        cheaper = f" The best cheaper method, {tables.words(best)}, reaches {self.run.score_of(best):.3f}." if best else ""
        return (
            f"{tables.words(self.run.score).capitalize()} {onnx:.3f} as {self.parameters['build.precision']} ONNX, {merged:.3f} "
            f"before the weights were rounded and {base:.3f} before training"
            f"{', by its most likely label' if self.run.by_likelihood('base') else ''}.{cheaper}"
        )

    @property
    def p_values(self) -> dict[str, float]:
        """Of the differences between onnx and each baseline, by McNemar's exact test."""
        onnx = list(map(is_right, self.predictions["onnx"]))
        return {name: mcnemar(onnx, [is_right(row, name) for row in self.baselines])["p_value"] for name in self.run.baselines}


def page(findings: Findings) -> str:
    """The HTML of the report."""
    run, prompt = findings.run, findings.prompt
    onnx = findings.predictions["onnx"]
    return environment().get_template("report.html.jinja").render(
        title=findings.title,
        verdict=findings.verdict,
        prompt=prompt.prompt or prompt.chat_template,
        learned=findings.learned,
        run=run,
        key_figures=key_figures(findings),
        gate=gate_in_words(findings.verdicts),
        tables=tables_of(findings),
        plots=draw(findings),
        confusions=tables.confusions(findings.predictions, prompt.labels) if prompt.labels else [],
        examples={
            "Right": (examples.right(onnx, prompt), sum(map(is_right, onnx))),
            "Wrong": (examples.wrong(onnx, prompt), sum(not is_right(row) for row in onnx)),
            "Changed by the rounding": (examples.changed(findings.changed, prompt), len(findings.changed)),
        },
        commands=findings.commands,
        parameters={name: tables.parameter(value) for name, value in findings.parameters.items()},
        experiments=findings.experiments,
    )  # fmt: skip


def key_figures(findings: Findings) -> list[tuple[str, str, str, str]]:
    """The figures at the top of the page: name, value, unit, and what to compare it with."""
    run = findings.run
    low, high = run.interval("onnx")
    level = f"{run.evaluate['onnx']['confidence_level']:.0%}"
    before, size = (run.benchmark[name]["size_mb"] for name in TIMED)
    slow, fast = map(run.tokens_per_second, TIMED)
    return [
        (tables.words(run.score), tables.figure(run.score_of("onnx")), "", f"{low:.3f} to {high:.3f} at {level}"),
        ("by the rounding", f"{-run.drop:+.3f}".replace("-", MINUS), "", f"{run.compare['changed']:,} answers changed"),
        ("size on disk", f"{size:,.0f}", "MB", f"{before:,.0f} before, {before / size:.1f} times"),
        ("speed", f"{fast:,.0f}", "tokens/s", f"{slow:,.0f} before, {fast / slow:.1f} times"),
    ]


def gate_in_words(verdicts: Sequence[Verdict]) -> str:
    """Whether the model may be shipped."""
    if not verdicts:
        return "No bound is set"
    broken = sum(not verdict.passed for verdict in verdicts)
    return (
        f"Gate not passed: {broken} of {len(verdicts)} bounds broken" if broken else f"Gate passed: {len(verdicts)} bounds kept"
    )


def tables_of(findings: Findings) -> dict[str, tables.Table]:
    """The tables by name."""
    run = findings.run
    all_tables = [
        tables.scores(run),
        *([tables.baselines(run, findings.p_values)] if run.baselines else []),
        *([tables.by_dataset(run)] if "datasets" in run.evaluate["onnx"] else []),
        tables.gate(findings.verdicts),
        *([tables.per_class(run)] if "per_class" in run.evaluate["onnx"] else []),
        *([tables.json_fields(run)] if run.has_schema else []),
        *([tables.probabilities(run)] if "nll" in run.evaluate["onnx"] else []),
        *([tables.retained(run)] if run.retained else []),
        tables.agreement(run),
        tables.speed(run),
        tables.data(run),
        tables.training(run),
        tables.pairs("versions", "Installed when this report was made", ["package", "version"], made_with()),
        tables.pairs("hashes", "What went in and what is shipped", ["file", "sha256"], findings.hashes),
    ]
    return {table.name: table for table in all_tables}


def made_with() -> dict[str, str]:
    """Versions of packages, and the image if there is one."""
    container = current_image()
    return installed_versions() | ({container["name"]: container["digest"]} if container else {})


def draw(findings: Findings) -> dict[str, Markup]:
    """The plots by name."""
    run, prepare = findings.run, findings.run.prepare
    steps = [*run.baselines, *CANDIDATES]
    scores, intervals = list(map(run.score_of, steps)), list(map(run.interval, steps))
    drawn = {
        "ladder": plots.ladder([tables.words(name) for name in steps], scores, intervals, tables.words(run.score)),
        "loss": plots.loss_curves(read_curve("train/loss"), read_curve("eval/loss")),
        "lengths": plots.lengths(prepare["lengths"]["edges"], prepare["lengths"]["counts"], prepare["source_max_len"]),
    }
    if findings.prompt.labels:
        drawn["reliability"] = plots.reliability({name: bins_of(findings.predictions[name]) for name in TIMED})
        if any(run.evaluate[name].get("temperature", 1) != 1 for name in TIMED):  # 1 changes nothing
            before = {name: bins_of(findings.predictions[name], "raw_confidence") for name in TIMED}
            drawn["reliability-before"] = plots.reliability(before, "reliability-before")
    if findings.experiments:
        drawn["sizes"] = plots.sizes(findings.experiments, tables.words(run.score))
    return drawn


def environment() -> Environment:
    """The environment of the templates."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def read_curve(name: str) -> list[tuple[int, float]]:
    """A loss curve of DVCLive as (step, value); empty if it was not logged."""
    path = LOSS_CURVES / f"{name}.tsv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file, delimiter="\t")]
