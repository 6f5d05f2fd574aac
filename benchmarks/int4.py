"""Measures what int4 recipes change in a fine-tuned model, over several seeds: the default model, trained anew for each.

    python -m benchmarks.int4                                   # the default rows; some eight minutes a seed on two cores
    python -m benchmarks.int4 --name mine data.files='[/rows/train.jsonl]' data.test_files='[/rows/test.jsonl]'
    python -m benchmarks.int4 --seeds 0,1                       # fewer of them

What stands behind the options are overrides of params.yaml, for every stage. A seed decides the split of the rows, the adapter's
first weights and the order of training. Each seed goes through the stages prepare, train and merge, and then through build once
for each recipe; both models then choose the tokens of all held-out answers, as the stage compare has them do.

- size: of the model's folder.
- KL: nats a token by which the int4 model's choice differs from merged's; mean, least and most of the seeds.
- same token: share of the tokens for which both hold the same most probable.
- right: share of the rows whose expected answer the model would write, a token after the other.
- lost: points of that against merged, with its standard error over the seeds; and McNemar's exact test over the rows of all
  seeds, small where the loss is more than chance.
- perplexity: of the expected answers.

The figures also go to benchmarks/results/int4.json, after each seed; those of other seeds and other names stay there.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from benchmarks.children import ROOT, environment, run
from benchmarks.circumstances import circumstances
from benchmarks.contenders import make_repository
from tunepress.core.errors import InputError
from tunepress.core.files import read_json, write_json
from tunepress.core.paths import BASE, MERGED, ONNX

RESULTS = Path(__file__).resolve().parent / "results" / "int4.json"
SAMPLES = 128  # training rows that gptq looks at
RECIPES = {
    "builder's default": ["build.algo_config=null"],
    "k_quant": ["build.algo_config=k_quant"],
    "k_quant_mixed": ["build.algo_config=k_quant_mixed"],
    f"gptq, {SAMPLES} rows": ["build.algo_config=gptq", f"build.n_samples={SAMPLES}"],
}
PACKAGES = ("torch", "transformers", "peft", "onnxruntime", "onnxruntime-genai")

Figures = dict[str, Any]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int4", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=numbers, default="0,1,2,3,4", help="(default: %(default)s)")
    parser.add_argument("--name", default="default rows", help="of the rows, in the results (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures go (default: %(default)s)")
    arguments, overrides = parser.parse_known_args()
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        for seed in dict.fromkeys(arguments.seeds):
            with tempfile.TemporaryDirectory(prefix="tunepress-") as scratch, console.status(f"seed {seed}"):
                keep(measure(Path(scratch), [f"seed={seed}", *overrides]), arguments.name, seed, arguments.results)
        console.print(table(arguments.name, list(read_json(arguments.results)["runs"][arguments.name].values())))
    except InputError as error:
        sys.exit(f"benchmarks.int4: {error}")
    except KeyboardInterrupt:
        sys.exit("benchmarks.int4: interrupted")


def numbers(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [int(number) for number in text.split(",")]


def measure(folder: Path, overrides: list[str]) -> Figures:
    """Takes one seed through the stages in a temporary folder.

    Args:
        folder: an empty one.
        overrides: of params.yaml.

    Returns:
        For merged and each recipe what benchmarks/int4_contender.py reports; and of a recipe size_mb and build_seconds.
    """
    for part in (BASE, Path("data/raw"), Path("conf"), Path("params.yaml")):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).symlink_to(ROOT / part)
    variables = environment(folder, kernels=True)
    make_repository(folder, variables)
    for stage in ("prepare", "train", "merge"):
        run(stage, folder, variables, sys.executable, "-m", f"stages.{stage}", *overrides)
    built = {}
    for number, (name, recipe) in enumerate(RECIPES.items()):
        usage = run(name, folder, variables, sys.executable, "-m", "stages.build", *overrides, *recipe)
        figures = read_json(folder / "metrics/build.json")
        (folder / ONNX).rename(folder / f"models/{number}")
        built[name] = {"size_mb": figures["size_mb"], "build_seconds": round(usage.seconds, 1)}
    folders = [str(MERGED), *(f"models/{number}" for number in range(len(RECIPES)))]
    run("comparing", folder, variables, sys.executable, "-m", "benchmarks.int4_contender", "report.json", *folders)
    merged, *others = read_json(folder / "report.json")
    return {"merged": merged} | {name: built[name] | other for name, other in zip(RECIPES, others, strict=True)}


def keep(measured: Figures, name: str, seed: int, results: Path) -> None:
    """Puts one seed's figures beside those that are there."""
    runs = read_json(results)["runs"] if results.exists() else {}
    runs[name] = dict(sorted((runs.get(name, {}) | {str(seed): measured}).items()))
    write_json(results, {**circumstances(PACKAGES), "runs": runs})


def table(name: str, seeds: list[Figures]) -> Table:
    """A line for merged and for each recipe, over all seeds."""
    rows = sum(seed["merged"]["rows"] for seed in seeds)
    shown = Table(title=f"{name}: {rows} held-out rows in {len(seeds)} seed{'s' if len(seeds) > 1 else ''}")
    for column in ("", "size", "build", "KL", "least\nto most", "same\ntoken", "right", "lost,\npoints", "p", "perplexity"):
        shown.add_column(column, justify="right" if column else "left", no_wrap=True)
    for model in ("merged", *RECIPES):
        shown.add_row(model, *cells(model, seeds))
    return shown


def cells(model: str, seeds: list[Figures]) -> list[str]:
    """The cells of a line, but for its name."""

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
        f"{mcnemar(model, seeds):.2g}",
        f"{mean('perplexity'):.3f}",
    ]


def lost(model: str, seeds: list[Figures]) -> str:
    """Points that a recipe loses against merged, with the standard error of their mean over the seeds."""
    points = [100 * (seed["merged"]["right"] - seed[model]["right"]) / seed[model]["rows"] for seed in seeds]
    error = f" ± {statistics.stdev(points) / len(points) ** 0.5:.1f}" if len(points) > 1 else ""
    return f"{statistics.fmean(points):.1f}{error}"


def mcnemar(model: str, seeds: list[Figures]) -> float:
    """The p-value of McNemar's exact test: rows that only merged has right against rows that only this model has."""
    only_merged, only_this = (sum(seed[model][key] for seed in seeds) for key in ("only_merged_right", "only_onnx_right"))
    return float(binomtest(only_merged, only_merged + only_this).pvalue) if only_merged + only_this else 1.0


if __name__ == "__main__":
    main()
