"""The verdict as a table and as a plot."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from tools.search.figures import axes, figure
from tools.search.verdict import Trial, Verdict, shown
from tunepress.core.files import atomic_output

BLUE, GREY, INK = "#2f6f9f", "#9aa5ad", "#1f2a30"


def table(verdict: Verdict) -> Table:
    """One line for each recipe: those that keep the limits by the goal, then the others, then the failed ones."""
    search = verdict.search
    order = f"{'smallest' if search.sign > 0 else 'largest'} {search.goal} first"
    drawn = Table(title=f"{len(verdict.trials)} recipes on the validation rows, {order}")
    drawn.add_column("experiment", no_wrap=True)
    for key in search.space:
        drawn.add_column(short(key, list(search.space)))
    for metric in axes(search):
        drawn.add_column(metric, justify="right")
    drawn.add_column("verdict")
    for trial in sorted(verdict.trials, key=lambda trial: rank(verdict, trial)):
        choices = [shown(trial.choices[key]) if key in trial.choices else "default" for key in search.space]
        figures = [f"{figure(metric, trial.figures):.5g}" if trial.figures else "-" for metric in axes(search)]
        style = "bold" if trial is verdict.winner else None
        drawn.add_row(trial.name, *map(escape, choices), *figures, escape(remark(verdict, trial)), style=style)
    return drawn


def short(key: str, keys: list[str]) -> str:
    """A key without its section where no other key is called so."""
    name = key.rpartition(".")[2]
    return name if [other.rpartition(".")[2] for other in keys].count(name) == 1 else key


def rank(verdict: Verdict, trial: Trial) -> tuple[bool, int, float]:
    """Where a recipe stands in the table."""
    if not trial.figures:
        return True, 0, 0.0
    search = verdict.search
    return False, len(verdict.broken(trial)), search.sign * figure(search.goal, trial.figures)


def remark(verdict: Verdict, trial: Trial) -> str:
    """What is to say of a recipe."""
    if not trial.figures:
        return f"failed: {trial.reason}"
    said = ["winner"] if trial is verdict.winner else []
    said += ["Pareto front"] if trial in verdict.front else []
    said += [f"breaks {limit.metric}" for limit in verdict.broken(trial)]
    return ", ".join(said)


def plot(verdict: Verdict, path: Path) -> None:
    """Draws the goal against each constrained figure, with the limits, the front and the winner, as SVG."""
    goal = verdict.search.goal
    others = [metric for metric in axes(verdict.search) if metric != goal] or [goal]
    drawn = Figure(figsize=(5.2 * len(others), 4.0), layout="constrained")
    for index, metric in enumerate(others):
        panel = drawn.add_subplot(1, len(others), index + 1)
        scatter(panel, verdict, goal, metric)
        panel.set(xlabel=goal, ylabel=metric)
        panel.spines[["top", "right"]].set_visible(False)
    drawn.axes[0].legend(frameon=False, fontsize="small")
    # element ids are random without a salt; text stays text
    with atomic_output(path) as partial, rc_context({"svg.hashsalt": "tunepress", "svg.fonttype": "none"}):
        drawn.savefig(partial, format="svg", metadata={"Date": None})


def scatter(panel: Axes, verdict: Verdict, goal: str, metric: str) -> None:
    """One panel: filled is what keeps all limits, large is the winner, a square the default recipe."""
    kinds: dict[str, list[Trial]] = {"keeps the limits": verdict.kept, "breaks a limit": []}
    kinds["breaks a limit"] = [trial for trial in verdict.finished if verdict.broken(trial)]
    for (name, trials), colour in zip(kinds.items(), (BLUE, "white"), strict=True):
        points = [(figure(goal, trial.figures), figure(metric, trial.figures)) for trial in trials]
        if points:
            panel.scatter(*zip(*points, strict=True), color=colour, edgecolor=BLUE, label=name, zorder=2)
    for trial, name, marker, size in ((verdict.winner, "winner", "o", 160), (verdict.trials[0], "default", "s", 110)):
        if trial:
            point = figure(goal, trial.figures), figure(metric, trial.figures)
            panel.scatter(*point, marker=marker, s=size, facecolor="none", edgecolor=INK, label=name, zorder=3)
    for trial in verdict.front:
        point = figure(goal, trial.figures), figure(metric, trial.figures)
        panel.annotate(trial.name, point, xytext=(5, 5), textcoords="offset points", fontsize="x-small", color=INK)
    for limit in verdict.limits:
        if limit.metric in (goal, metric):
            line = panel.axhline if limit.metric == metric else panel.axvline
            line(limit.value, color=GREY, linestyle="--", linewidth=1, zorder=1)
