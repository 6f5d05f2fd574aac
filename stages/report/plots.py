"""Plots of the report. The accent marks the shipped model; each `gid` becomes an id in the page."""

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from stages.report.calibration import Bin
from stages.report.experiments import Experiment
from stages.report.svg import ACCENT, INK, LINE, MUTED, SOFT, WIDTH, inline

Curve = Sequence[tuple[int, float]]


def ladder(names: Sequence[str], values: Sequence[float], intervals: Sequence[tuple[float, float]], label: str) -> Markup:
    """One bar for each method and candidate, the shipped one last, with its confidence interval."""
    figure, axes = canvas(height=0.6 + 0.5 * len(names))
    for y, (name, value, (low, high)) in enumerate(zip(names, values, intervals, strict=True)):
        axes.barh(y, value, height=0.62, color=ACCENT if name == names[-1] else SOFT)[0].set_gid(name)
        axes.plot([low, high], [y, y], color=INK, linewidth=1.5, marker="|", markersize=8, gid=f"{name}-interval")
        axes.text(high + 0.02, y, f"{value:.3f}", va="center")
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set(xlim=(0, 1.14), xticks=[0, 0.25, 0.5, 0.75, 1], xlabel=label)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    description = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, values, strict=True))
    return inline(figure, "ladder", f"{label} of each method and model", f"Bars with intervals: {description}.")


def loss_curves(train: Curve, validation: Curve) -> Markup:
    """Loss over optimizer steps, as (step, loss)."""
    figure, axes = canvas(height=2.9)
    for points, name, colour in ((train, "training", MUTED), (validation, "validation", ACCENT)):
        if points:
            marker = "o" if len(points) <= 60 else None
            axes.plot(*zip(*points, strict=True), label=name, color=colour, marker=marker, markersize=4, gid=name)
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    if train or validation:
        axes.legend()
    ends = [f"{name} ends at {points[-1][1]:.3f}" for name, points in (("training", train), ("validation", validation)) if points]
    return inline(figure, "loss", "Loss while training", f"Curves over steps: {'; '.join(ends) or 'none was logged'}.")


def lengths(edges: Sequence[int], counts: Sequence[int], limit: int) -> Markup:
    """Histogram of the rows' tokens, and the limit above which a row is cut or dropped.

    Args:
        edges: of the bins, in tokens, one more than `counts`.
        counts: rows in each bin.
        limit: data.source_max_len.
    """
    figure, axes = canvas(height=2.9)
    left = [max(edge, 1) for edge in edges[:-1]]  # there is no 0 on a scale of powers of two
    widths = [right - start for start, right in zip(left, edges[1:], strict=True)]
    for number, bar in enumerate(axes.bar(left, counts, widths, align="edge", color=SOFT, edgecolor=MUTED, linewidth=0.6)):
        bar.set_gid(f"bin-{number}")
    axes.axvline(limit, color=ACCENT, linewidth=2, gid="limit")
    axes.annotate(f"limit {limit:,}", (limit, 1), (-6, -4), xycoords=("data", "axes fraction"), textcoords="offset points",
                  ha="right", va="top", color=ACCENT)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="tokens of a row (log scale)", ylabel="rows", ylim=(0, max(counts) * 1.2))
    description = f"{sum(counts)} rows between {edges[0]} and {edges[-1]} tokens; the limit is {limit}."
    return inline(figure, "lengths", "Lengths of the rows in tokens", description)


def reliability(bins: dict[str, list[Bin]], name: str = "reliability") -> Markup:
    """Confidence against the share that is right, for each candidate; on the diagonal the two are the same."""
    figure, axes = canvas(height=3.9)
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.5, linestyle=(0, (4, 3)), gid="diagonal")
    rows = max(sum(bin.rows for bin in members) for members in bins.values())
    for (candidate, members), colour in zip(bins.items(), (MUTED, ACCENT), strict=True):
        x, y = [bin.confidence for bin in members], [bin.right for bin in members]
        axes.plot(x, y, color=colour, linewidth=1.2, label=candidate)
        axes.scatter(x, y, [18 + 220 * bin.rows / rows for bin in members], color=colour, gid=candidate)
    axes.set(xlim=(0, 1.04), ylim=(-0.04, 1.04), xlabel="confidence", ylabel="share that is right")
    axes.legend(loc="upper left")
    description = "; ".join(
        f"{candidate}: " + ", ".join(f"{bin.right:.2f} right at {bin.confidence:.2f}" for bin in members)
        for candidate, members in bins.items()
    )
    return inline(figure, name, "Confidence and the share that is right", f"{description}.")


def sizes(experiments: Sequence[Experiment], score: str) -> Markup:
    """Size on disk against the score of each experiment, that of the working tree in the accent."""
    figure, axes = canvas(height=3.4)
    ordered = sorted(experiments, key=lambda experiment: experiment.workspace)  # drawn last, so on top
    for number, experiment in enumerate(ordered):
        colour = ACCENT if experiment.workspace else MUTED
        size = 9 if experiment.workspace else 6
        axes.plot(experiment.size_mb, experiment.score, "o", color=colour, markersize=size, gid=f"experiment-{number}")
        if experiment.workspace:
            axes.annotate(
                experiment.name, (experiment.size_mb, experiment.score), (8, 4), textcoords="offset points", color=ACCENT
            )
    axes.margins(0.18)
    axes.set(xlabel="size of the ONNX model, MB", ylabel=score)
    points = [f"{experiment.name} {experiment.size_mb:.0f} MB {experiment.score:.3f}" for experiment in experiments]
    return inline(figure, "sizes", f"Size against {score} of all experiments", f"{', '.join(points)}.")


def canvas(height: float) -> tuple[Figure, Axes]:
    """An empty figure of the page's column, `height` inches high."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()
