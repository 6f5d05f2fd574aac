"""Measures what int4 recipes change in a fine-tuned model, over several seeds: the default model, trained again for each.

    python -m benchmarks.int4                                   # the default rows; some eight minutes a seed on two cores
    python -m benchmarks.int4 --name mine data.files='[/rows/train.jsonl]' data.test_files='[/rows/test.jsonl]'
    python -m benchmarks.int4 --seeds 0,1                       # fewer of them

The arguments after the options are overrides of params.yaml, for every stage. A seed decides the split of the rows, the adapter's
first weights and the order of training. Each seed goes through the stages prepare, train and merge, and then through build once
for each recipe; both models then choose the tokens of all held-out answers, as in the stage compare.

- size: of the model's folder.
- KL: nats a token by which the int4 model's choice differs from merged's; mean, least and most of the seeds.
- same token: share of the tokens for which both have the same most probable token.
- right: share of the rows whose expected answer the model would write, token by token.
- lost: points of that compared with merged, with the standard error over the seeds; and the p-value of McNemar's exact test over
  the rows of all seeds, small where the loss is more than chance.
- perplexity: of the expected answers.
- calibration error, Brier score, nll: of the probabilities of labels, before and after the temperature that is fitted on the
  validation rows; and decisions flipped: the share of rows whose most likely label is not merged's.

The figures are written after each seed, beside those of other seeds and other names in the same file.
"""

import statistics
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, main, numbers, table
from benchmarks.processes import Figures, call, environment, make_repository, run, workspace
from tunepress.core.files import read_json
from tunepress.core.paths import BASE, MERGED, ONNX
from tunepress.inference.metrics import mcnemar_p_value

SAMPLES = 128  # training rows that gptq looks at
RECIPES = {
    "builder's default": ["build.algo_config=null"],
    "k_quant": ["build.algo_config=k_quant"],
    "k_quant_mixed": ["build.algo_config=k_quant_mixed"],
    f"gptq, {SAMPLES} rows": ["build.algo_config=gptq", f"build.n_samples={SAMPLES}"],
}
LABELS = ("", "calibration\nerror", "Brier\nscore", "nll", "temperature", "decisions\nflipped")
COLUMNS = ("", "size", "build", "KL", "least\nto most", "same\ntoken", "right", "lost,\npoints", "p", "perplexity")


def add_options(parser: ArgumentParser) -> None:
    """Adds --seeds, --name and the overrides."""
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2, 3, 4], metavar="N,N", help="(default: 0,1,2,3,4)")
    parser.add_argument("--name", default="default rows", help="of the rows, in the results (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides of params.yaml")


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Takes the seeds through the stages, one after the other."""
    runs: Figures = {}
    for seed in dict.fromkeys(options.seeds):
        with console.status(f"seed {seed}"):
            figures = measure_seed(scratch / str(seed), [f"seed={seed}", *options.overrides])
        runs = keep(figures, options.name, seed, options.output)
    return {"runs": runs}


def measure_seed(folder: Path, overrides: list[str]) -> Figures:
    """Takes one seed through the stages in a new folder.

    Returns:
        For merged and each recipe what benchmarks/int4/contender.py reports; and of a recipe size_mb and build_seconds.
    """
    workspace(folder, BASE, "data/raw", "conf", "params.yaml")
    variables = environment(folder, kernels=True)
    make_repository(folder, variables)
    for stage in ("prepare", "train", "merge"):
        run(stage, folder, variables, sys.executable, "-m", f"stages.{stage}", *overrides)
    built = {}
    for number, (name, recipe) in enumerate(RECIPES.items()):
        usage = run(name, folder, variables, sys.executable, "-m", "stages.build", *overrides, *recipe)
        (folder / ONNX).rename(folder / f"models/{number}")
        size = read_json(folder / "metrics/build.json")["size_mb"]
        built[name] = {"size_mb": size, "build_seconds": round(usage.seconds, 1)}
    folders = [str(MERGED), *(f"models/{number}" for number in range(len(RECIPES)))]
    compared, _ = call("benchmarks.int4.contender:compare", folder, kernels=True, folders=folders)
    merged, *others = compared["models"]
    return {"merged": merged} | {name: built[name] | other for name, other in zip(RECIPES, others, strict=True)}


def keep(figures: Figures, name: str, seed: int, results: Path) -> Figures:
    """Writes one seed's figures beside those in a file; returns all of them."""
    runs: Figures = read_json(results)["runs"] if results.exists() else {}
    runs[name] = dict(sorted((runs.get(name, {}) | {str(seed): figures}).items()))
    BENCHMARK.write(results, {"runs": runs})
    return runs


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """A line for merged and for each recipe, over all seeds."""
    seeds = list(measured["runs"][options.name].values())
    rows = sum(seed["merged"]["rows"] for seed in seeds)
    title = f"{options.name}: {rows} held-out rows in {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    yield table(title, COLUMNS, [(model, *cells(model, seeds)) for model in ("merged", *RECIPES)])
    if calibrated := [seed for seed in seeds if "temperature" in seed["merged"]]:
        rows_of_labels = [(model, *label_cells(model, calibrated)) for model in ("merged", *RECIPES)]
        yield table(f"Probabilities of labels, {len(calibrated)} seeds, before and after the temperature", LABELS, rows_of_labels)


def cells(model: str, seeds: list[Figures]) -> list[str]:
    """The cells of a line after its name."""

    def mean(key: str) -> float:
        return statistics.fmean(seed[model][key] for seed in seeds)

    right = statistics.fmean(seed[model]["right"] / seed[model]["rows"] for seed in seeds)
    if model == "merged":
        return ["", "", "", "", "", f"{right:.3f}", "", "", f"{mean('perplexity'):.3f}"]
    divergences = [seed[model]["mean_kl"] for seed in seeds]
    return [
        f"{mean('size_mb'):.1f} MB",
        f"{mean('build_seconds'):.0f} s",
        f"{statistics.fmean(divergences):.4f}",
        f"{min(divergences):.4f}\n{max(divergences):.4f}",
        f"{mean('top1_agreement'):.1%}",
        f"{right:.3f}",
        lost(model, seeds),
        f"{p_value(model, seeds):.2g}",
        f"{mean('perplexity'):.3f}",
    ]


def label_cells(model: str, seeds: list[Figures]) -> list[str]:
    """The cells of a line about the probabilities of labels, means over the seeds."""

    def mean(key: str) -> float:
        return statistics.fmean(seed[model][key] for seed in seeds)

    def after(key: str) -> float:
        return statistics.fmean(seed[model]["calibrated"][key] for seed in seeds)

    pairs = [f"{mean(key):.3f}\n{after(key):.3f}" for key in ("calibration_error", "brier", "nll")]
    return [*pairs, f"{mean('temperature'):.2f}", "" if model == "merged" else f"{mean('flipped_share'):.1%}"]


def lost(model: str, seeds: list[Figures]) -> str:
    """Points that a recipe loses compared with merged, with the standard error of their mean over the seeds."""
    points = [100 * (seed["merged"]["right"] - seed[model]["right"]) / seed[model]["rows"] for seed in seeds]
    error = f" ± {statistics.stdev(points) / len(points) ** 0.5:.1f}" if len(points) > 1 else ""
    return f"{statistics.fmean(points):.1f}{error}"


def p_value(model: str, seeds: list[Figures]) -> float:
    """McNemar's test of all seeds' rows: those that only merged has right and those that only this model has right."""
    only_merged, only_onnx = (sum(seed[model][key] for seed in seeds) for key in ("only_merged_right", "only_onnx_right"))
    return mcnemar_p_value(only_merged, only_onnx)


BENCHMARK = Benchmark(
    "int4",
    __doc__,
    ("torch", "transformers", "peft", "onnxruntime", "onnxruntime-genai"),
    measure,
    report,
    add_options,
    recorded=("seeds", "name", "overrides"),
)

if __name__ == "__main__":
    main(BENCHMARK)
