"""Runs every stage on a model of full size, and measures the time and the peak memory of each.

    python -m benchmarks.full_size                              # about an hour on two cores, 30 GB of disk below TMPDIR
    python -m benchmarks.full_size --shape qwen3-4b --output benchmarks/results/full_size_qwen3_4b.json
    python -m benchmarks.full_size --experiment phi3_mini_laptop --until train train.max_steps=1     # memory of hours of training
    python -m benchmarks.full_size --keep /tmp/full_size         # may be stopped; again, it skips the stages that are measured
    python -m benchmarks.full_size --shape tiny                 # to see that it works

The model has random weights in bfloat16 in a real shape, and the tokenizer of models/base, which `make repro` makes (without the
last tokens where its vocabulary is smaller). The recipe is an experiment of conf/experiment/ in float32, by default Olive's
example: LoRA of r=64 on two layers, ten steps of four rows. Its rows are the project's own, 8 of them for the evaluation. gptq
takes as many rows as always. The speed of the models is measured with few tokens, because nothing is learned here from more. A
stage is a process of its own, as for `dvc repro`.
"""

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from benchmarks.harness import Benchmark, check_disk, gigabytes, main, table
from benchmarks.models import SHAPES, add_shape
from benchmarks.processes import ROOT, Figures, call, environment, make_repository, run, workspace
from tools.cli.params import compose
from tunepress.core.errors import InputError
from tunepress.core.files import read_json, write_json
from tunepress.core.params import PARAMS
from tunepress.core.paths import BASE

STAGES = (
    *("fetch", "prepare", "train", "merge", "build", "evaluate base", "evaluate merged", "evaluate onnx", "compare", "baselines"),
    *("benchmark merged", "benchmark onnx", "report", "gate"),
)
MADE, MEASURED = "made.json", "measured.json"  # what an earlier run in the same folder has done
FOLDERS = 3.5  # models on the disk at once: the source, base, merged, and the int4 model
SMALL = (
    *("data.max_samples=48", "data.max_validation_samples=8", "data.max_test_samples=8"),
    *("benchmark.prompt_tokens=64", "benchmark.new_tokens=8", "benchmark.batch_sizes=[1]", "benchmark.repetitions=2"),
    *("gate.max_drop=null", "gate.min_gain=null", "gate.min_gain_over=null", "gate.max_invalid_rate=null"),  # it passes none
    *("evaluate.baselines=[majority,tfidf,zero_shot]", "evaluate.retained=null"),
)


def add_options(parser: ArgumentParser) -> None:
    add_shape(parser)
    parser.add_argument("--experiment", default="olive_example", help="of conf/experiment/ (default: %(default)s)")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="overrides of the experiment, such as train.max_steps=1"
    )
    add_until(parser)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in this folder, keep it, and skip what it has measured")


def add_until(parser: ArgumentParser) -> None:
    """Adds --until."""
    parser.add_argument("--until", choices=STAGES, default=STAGES[-1], help="the last stage (default: %(default)s)")


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Makes the model and runs the stages."""
    if options.keep:
        scratch = options.keep.resolve()
        scratch.mkdir(parents=True, exist_ok=True)
    variables = environment(scratch, kernels=True) | {"PYTHONWARNINGS": "ignore"}
    chosen = {"shape": options.shape, "experiment": options.experiment, "overrides": options.overrides}
    if not (scratch / MADE).exists():
        write_json(scratch / MADE, chosen | make_source(options, scratch, console))
    made: Figures = read_json(scratch / MADE)
    if differing := next((name for name, value in chosen.items() if made[name] != value), None):
        raise InputError(f"{scratch}: has measured another {differing}, {made[differing]}; use another folder")
    model = (f"+experiment={options.experiment}", "base_model=folder", "base_model.path=source", "train.bf16=false")
    overrides = [*model, *fitting(options), *SMALL, *options.overrides]
    return made | {"stages": run_stages(overrides, scratch, variables, console, options.until)}


def make_source(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Makes the model that the stages work on."""
    check_disk(scratch, FOLDERS * SHAPES[options.shape].model_bytes)
    tokenizer = None if options.shape == "tiny" else ROOT / BASE
    if tokenizer and not tokenizer.exists():
        raise InputError(f"{BASE}: not found; run `make repro`")
    with console.status("making the model"):
        make = partial(call, "benchmarks.full_size:make_model", scratch, kernels=True)
        made, _ = make(shape=options.shape, tokenizer=tokenizer and str(tokenizer))
    return made


def run_stages(overrides: list[str], scratch: Path, variables: Mapping[str, str], console: Console, until: str) -> Figures:
    """Runs a recipe's stages up to `until` in `scratch`; returns what each process used, and the memory that train planned."""
    if not (scratch / PARAMS).exists():
        workspace(scratch, "conf", "data/raw", "data/retained", "dvc.yaml", "requirements")
        make_repository(scratch, variables)
        (scratch / PARAMS).write_text(compose(overrides), encoding="utf-8")
    stages: Figures = read_json(scratch / MEASURED) if (scratch / MEASURED).exists() else {}
    for name in STAGES[: STAGES.index(until) + 1]:
        if name in stages:
            continue
        with console.status(name):
            stage, *candidate = name.split()
            stages[name] = run(name, scratch, variables, sys.executable, "-m", f"stages.{stage}", *candidate).figures()
        if plan := re.search(r"about ([\d.]+) of [\d.]+ GB free memory", (scratch / "output.log").read_text(errors="replace")):
            stages[name]["planned_gb"] = float(plan[1])
        write_json(scratch / MEASURED, stages)
    return stages


def fitting(options: Namespace) -> list[str]:
    """The experiment's values that a model of another shape than Phi-3-mini's cannot have."""
    if options.shape == "tiny":  # its context is short
        return ["data.source_max_len=256"]
    if SHAPES[options.shape].config["model_type"] != "phi3":  # which has queries, keys and values in one layer
        return ["adapter.target_modules=[o_proj,q_proj,k_proj,v_proj]"]
    return []


def make_model(shape: str, tokenizer: str | None) -> dict[str, Any]:
    """Writes the model to the folder `source`. Runs in a process of its own."""
    from benchmarks.models import random_model

    model, files = random_model(SHAPES[shape].config, Path("source"), tokenizer=Path(tokenizer) if tokenizer else None)
    return {"parameters": model.num_parameters(), "files": files}


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """One line for each stage."""
    yield stage_table(f"{measured['parameters'] / 1e6:,.0f} M parameters, {measured['experiment']}", measured["stages"])
    if train := measured["stages"].get("train"):
        yield f"train had planned {train['planned_gb']:.1f} GB"


def stage_table(title: str, stages: Figures) -> Table:
    """What `run_stages` measured, one line for each stage."""
    rows = [(name, f"{used['process_seconds']:.0f} s", gigabytes(used["peak_memory_mb"])) for name, used in stages.items()]
    return table(title, ("stage", "time", "peak memory"), rows)


BENCHMARK = Benchmark(
    "full_size",
    __doc__,
    ("torch", "transformers", "peft", "onnxruntime", "onnxruntime-genai"),
    measure,
    report,
    add_options=add_options,
)

if __name__ == "__main__":
    main(BENCHMARK)
