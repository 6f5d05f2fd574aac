"""The verdict as text, as a table and as a plot."""

from pathlib import Path
from statistics import fmean, stdev

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from tools.search.metrics import Metrics, axes, interval, limits, value_of
from tools.search.verdict import Trial, Verdict, display
from tunepress.core.files import atomic_output
from tunepress.inference.metrics import CHANCE

BLUE, GREY, INK = "#2f6f9f", "#9aa5ad", "#1f2a30"


def table(verdict: Verdict) -> Table:
    """One row per recipe: those within the limits by the goal, then the others, then the failed ones."""
    search = verdict.search
    order = f"{'smallest' if search.sign > 0 else 'largest'} {search.goal} first"
    table = Table(title=f"{len(verdict.trials)} recipes on the validation rows, {order}")
    table.add_column("experiment", no_wrap=True)
    for key in search.space:
        table.add_column(short(key, list(search.space)))
    for metric in axes(search):
        table.add_column(metric, justify="right")
    table.add_column("verdict")
    for trial in sorted(verdict.trials, key=lambda trial: rank(verdict, trial)):
        choices = [display(trial.choices[key]) if key in trial.choices else "default" for key in search.space]
        metrics = [f"{value_of(metric, trial.metrics):.5g}" if trial.metrics else "-" for metric in axes(search)]
        style = "bold" if trial is verdict.winner else None
        table.add_row(trial.name, *map(escape, choices), *metrics, escape(describe(verdict, trial)), style=style)
    return table


def short(key: str, keys: list[str]) -> str:
    """The last part of a key, unless another key has the same."""
    name = key.rpartition(".")[2]
    return name if [other.rpartition(".")[2] for other in keys].count(name) == 1 else key


def rank(verdict: Verdict, trial: Trial) -> tuple[bool, int, float]:
    """The sort key of a recipe in the table."""
    if not trial.metrics:
        return True, 0, 0.0
    search = verdict.search
    return False, len(verdict.broken(trial)), search.sign * value_of(search.goal, trial.metrics)


def describe(verdict: Verdict, trial: Trial) -> str:
    if not trial.metrics:
        return f"failed: {trial.reason}"
    remarks = ["winner"] if trial is verdict.winner else []
    remarks += ["Pareto front"] if trial in verdict.front else []
    remarks += [f"breaks {limit.metric}" for limit in verdict.broken(trial)]
    if verdict.p_values.get(trial.name, 1.0) < CHANCE:
        remarks.append(f"differs from the default (p {verdict.p_values[trial.name]:.2g})")
    return ", ".join(remarks)


def plot(verdict: Verdict, path: Path) -> None:
    """Draws the goal against each constrained metric, with the limits, the front and the winner, as SVG.

    With search.against it draws the goal against that metric instead, with its intervals.
    """
    goal = verdict.search.goal
    if verdict.search.against:
        save(curve(verdict, verdict.search.against), path)
        return
    others = [metric for metric in axes(verdict.search) if metric != goal] or [goal]
    figure = Figure(figsize=(5.2 * len(others), 4.0), layout="constrained")
    for index, metric in enumerate(others):
        panel = figure.add_subplot(1, len(others), index + 1)
        scatter(panel, verdict, goal, metric)
        panel.set(xlabel=goal, ylabel=metric)
        panel.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize="small")
    save(figure, path)


def curve(verdict: Verdict, metric: str) -> Figure:
    """The goal of each recipe against a metric, by rising values of it, with its interval if it has one."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    panel = figure.add_subplot()
    trials = sorted(verdict.finished, key=lambda trial: value_of(metric, trial.metrics))
    x, y = ([value_of(name, trial.metrics) for trial in trials] for name in (metric, verdict.search.goal))
    bounds = [interval(verdict.search.goal, trial.metrics) or (value, value) for trial, value in zip(trials, y, strict=True)]
    errors = [
        [value - low for (low, _), value in zip(bounds, y, strict=True)],
        [high - value for (_, high), value in zip(bounds, y, strict=True)],
    ]
    panel.errorbar(x, y, errors, color=BLUE, marker="o", capsize=3)
    panel.set(xlabel=metric.rpartition(":")[2], ylabel=verdict.search.goal)
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def save(figure: Figure, path: Path) -> None:
    # without a salt, element ids are random; without fonttype, text becomes paths
    with atomic_output(path) as partial, rc_context({"svg.hashsalt": "tunepress", "svg.fonttype": "none"}):
        figure.savefig(partial, format="svg", metadata={"Date": None})


def scatter(panel: Axes, verdict: Verdict, goal: str, metric: str) -> None:
    """One panel: filled points are within all limits, a large circle is the winner, a square the default recipe."""
    kinds: dict[str, list[Trial]] = {"keeps the limits": verdict.feasible, "breaks a limit": []}
    kinds["breaks a limit"] = [trial for trial in verdict.finished if verdict.broken(trial)]
    for (name, trials), colour in zip(kinds.items(), (BLUE, "white"), strict=True):
        points = [(value_of(goal, trial.metrics), value_of(metric, trial.metrics)) for trial in trials]
        if points:
            panel.scatter(*zip(*points, strict=True), color=colour, edgecolor=BLUE, label=name, zorder=2)
    for trial, name, marker, size in ((verdict.winner, "winner", "o", 160), (verdict.trials[0], "default", "s", 110)):
        if trial:
            point = value_of(goal, trial.metrics), value_of(metric, trial.metrics)
            panel.scatter(*point, marker=marker, s=size, facecolor="none", edgecolor=INK, label=name, zorder=3)
    for trial in verdict.front:
        point = value_of(goal, trial.metrics), value_of(metric, trial.metrics)
        panel.annotate(trial.name, point, xytext=(5, 5), textcoords="offset points", fontsize="x-small", color=INK)
    for limit in verdict.limits:
        if limit.metric in (goal, metric):
            line = panel.axhline if limit.metric == metric else panel.axvline
            line(limit.value, color=GREY, linestyle="--", linewidth=1, zorder=1)


def sentence(verdict: Verdict) -> str:
    """The winner and the reason, or the trial that came closest."""
    limits_text = " and ".join(map(str, verdict.limits))
    best = "lowest" if verdict.search.sign > 0 else "highest"
    if verdict.winner is None:
        closest = min(verdict.finished, key=lambda trial: overshoot(verdict, trial))
        excess = "; ".join(f"{limit.metric} {value_of(limit.metric, closest.metrics):.5g}" for limit in verdict.broken(closest))
        return f"No recipe has {limits_text}. Closest is {closest.name} ({closest.label}) with {excess}."
    goal = verdict.search.goal
    condition = (
        f" of the {len(verdict.feasible)} (of {len(verdict.finished)} that finished) with {limits_text}" if limits_text else ""
    )
    reached = value_of(goal, verdict.winner.metrics)
    text = f"{verdict.winner.name} ({verdict.winner.label}) wins: its {goal}, {reached:.5g}, is the {best}{condition}"
    if verdict.winner is verdict.trials[0]:
        return f"{text}."
    return f"{text}; the default recipe has {value_of(goal, verdict.trials[0].metrics):.5g}."


def spread(verdict: Verdict) -> str:
    """The mean and the spread of the goal over the seeds; empty unless the recipes differ in nothing else."""
    values = [value_of(verdict.search.goal, trial.metrics) for trial in verdict.finished]
    if list(verdict.search.space) != ["seed"] or len(values) < 2:
        return ""
    return (
        f"{verdict.search.goal} of {len(values)} seeds: mean {fmean(values):.5g}, standard deviation {stdev(values):.2g}, "
        f"{min(values):.5g} to {max(values):.5g}."
    )


def tested_lines(verdict: Verdict) -> list[str]:
    """The results of the winner and the default recipe on the test rows."""
    default = verdict.tested[-1].metrics if verdict.tested else {}
    bounds = limits(verdict.search.constraints, default) if default else verdict.limits
    lines = []
    for trial in verdict.tested:
        name = f"{trial.name} ({trial.label})"
        if not trial.metrics:
            lines.append(f"{name} failed: {trial.reason}")
            continue
        values = ", ".join(f"{metric} {with_interval(metric, trial.metrics)}" for metric in axes(verdict.search))
        broken = [limit.metric for limit in bounds if limit.excess(trial.metrics) > 0]
        lines.append(f"{name}: {values}{'; breaks ' + ', '.join(broken) if broken else ''}")
    return lines


def with_interval(metric: str, metrics: Metrics) -> str:
    """A metric, with its interval if it has one."""
    bounds = interval(metric, metrics)
    return f"{value_of(metric, metrics):.5g}{f' ({bounds[0]:.3f} to {bounds[1]:.3f})' if bounds else ''}"


def overshoot(verdict: Verdict, trial: Trial) -> float:
    """How far a trial exceeds its limits, as the sum of shares of them."""
    broken = verdict.broken(trial)
    return sum(limit.excess(trial.metrics) / (abs(limit.value) or 1) for limit in broken)
