"""Plots of the report as SVG text, the same bytes for the same figures."""

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

matplotlib.rcParams["svg.hashsalt"] = "tunepress"  # element ids are random without it
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text, in the page's font
matplotlib.rcParams["font.size"] = 9
BLUE, GREY, INK = "#2f6f9f", "#9aa5ad", "#1f2a30"


def loss_curves(train: Sequence[tuple[int, float]], validation: Sequence[tuple[int, float]]) -> str:
    """Loss over optimizer steps, as (step, loss)."""
    figure = Figure(figsize=(4.8, 2.9), layout="constrained")
    axes = figure.add_subplot()
    for points, name, colour in ((train, "training", BLUE), (validation, "validation", GREY)):
        if points:
            axes.plot(*zip(*points, strict=True), label=name, color=colour, marker="o", markersize=3)
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return svg(figure)


def scores(names: Sequence[str], values: Sequence[float], intervals: Sequence[tuple[float, float]], label: str) -> str:
    """One bar for each candidate, with its confidence interval."""
    figure = Figure(figsize=(4.8, 2.9), layout="constrained")
    axes = figure.add_subplot()
    below = [value - low for value, (low, _) in zip(values, intervals, strict=True)]
    above = [high - value for value, (_, high) in zip(values, intervals, strict=True)]
    axes.barh(names, values, xerr=[below, above], color=[GREY, BLUE, BLUE], ecolor=INK, capsize=3, height=0.6)
    axes.set(xlim=(0, 1), xlabel=label)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return svg(figure)


def confusion(expected: Sequence[str], predicted: Sequence[str], labels: Sequence[str], title: str) -> str:
    """A confusion matrix: rows are what was expected, columns what was said."""
    counts = [[0] * len(labels) for _ in labels]
    for one, other in zip(expected, predicted, strict=True):
        counts[labels.index(one)][labels.index(other)] += 1
    figure = Figure(figsize=(3.1, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(counts, cmap="Blues")
    top = max(max(row) for row in counts)
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            axes.text(x, y, str(count), ha="center", va="center", color="white" if count > top / 2 else INK)
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(title=title, xlabel="predicted", ylabel="expected")
    return svg(figure)


def svg(figure: Figure) -> str:
    """The figure as an <svg> element without a date."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
