"""The tables that are made from benchmarks/results/int4.json."""

from collections.abc import Callable
from statistics import fmean, stdev

from tools.docs.benchmarks import Figures, measured, read
from tools.docs.markdown import table
from tunepress.inference.metrics import mcnemar_p_value

LEAST_P = 0.0001  # the tables show smaller values as < 0.0001


def recipes() -> str:
    """What each recipe changes in the predicted tokens and the accuracy."""
    figures = read("int4")
    recipes = [name for name in figures["runs"]["default rows"]["0"] if name != "merged"]
    sets = {name: list(seeds.values()) for name, seeds in figures["runs"].items()}
    head = ["`build.algo_config`", "size"]
    for name, seeds in sets.items():
        held_out = sum(seed["merged"]["rows"] for seed in seeds)
        head += [f"{name}, {held_out:,} held-out rows: KL divergence, mean (least to most)", "points of accuracy lost"]
    rows = []
    for recipe in recipes:
        row = [recipe, f"{fmean(seed[recipe]['size_mb'] for seed in sets['default rows']):.1f} MB"]
        for seeds in sets.values():
            divergences = [seed[recipe]["mean_kl"] for seed in seeds]
            row += [f"{fmean(divergences):.3f} ({min(divergences):.3f} to {max(divergences):.3f})", lost_points(recipe, seeds)]
        rows.append(row)
    return table(head, rows) + measured(figures)


def lost_points(recipe: str, seeds: list[Figures]) -> str:
    """Points of accuracy lost against merged, their standard error over the trainings, and McNemar's p over all rows."""
    points = [100 * (seed["merged"]["right"] - seed[recipe]["right"]) / seed[recipe]["rows"] for seed in seeds]
    only_merged, only_onnx = (sum(seed[recipe][key] for seed in seeds) for key in ("only_merged_right", "only_onnx_right"))
    p = mcnemar_p_value(only_merged, only_onnx)
    shown = f"p < {LEAST_P}" if p < LEAST_P else f"p = {p:.1g}" if p < 0.01 else f"p = {p:.2f}"
    return f"{fmean(points):.1f} ± {stdev(points) / len(points) ** 0.5:.1f}, {shown}"


def probabilities() -> str:
    """What each recipe changes in the probabilities of labels, before and after the temperature."""
    figures = read("int4")
    rows = []
    for name, by_seed in figures["runs"].items():
        seeds = [seed for seed in by_seed.values() if "calibrated" in seed["merged"]]
        for model in seeds[0] if seeds else ():
            changes = [change(seeds, model, key) for key in ("calibration_error", "nll", "brier")]
            temperature = f"{fmean(seed[model]['temperature'] for seed in seeds):.2f}"
            flipped = "" if model == "merged" else f"{fmean(seed[model]['flipped_share'] for seed in seeds):.1%}"
            rows.append([f"{name}, {len(seeds)} trainings", model, *changes, temperature, flipped])
    head = ["rows", "model", "calibration error, after", "nll, after", "Brier score, after", "temperature", "decisions flipped"]
    return table(head, rows) + measured(figures)


def change(seeds: list[Figures], model: str, key: str) -> str:
    """A metric before and after the temperature, means over the seeds."""
    before, after = fmean(seed[model][key] for seed in seeds), fmean(seed[model]["calibrated"][key] for seed in seeds)
    return f"{before:.3f}, {after:.3f}"


PARTS: dict[str, Callable[[], str]] = {"benchmark int4": recipes, "benchmark int4 probabilities": probabilities}
