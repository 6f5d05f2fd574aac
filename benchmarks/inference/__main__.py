"""Measures inference: onnxruntime-genai with int4 weights, torch and llama.cpp, with the same model in the same run.

    python -m benchmarks.inference                    # some seven minutes on two cores; the first time llama.cpp is compiled
    python -m benchmarks.inference --contender onnx --contender torch --prompt-tokens 64 --repetitions 3
    python -m benchmarks.inference --pipeline         # the pipeline's own result: models/onnx and models/merged in torch

Contenders run one after the other, each in a process of its own, on the CPU, with as many threads as there are cores.
llama.cpp is compiled for this machine in an environment of its own (it needs a C++ compiler) and has the Q4_1 file that the
default models/base was dequantized from. torch has models/base in float32, and so the same weights. onnxruntime-genai has an int4
model built from models/base by the recipe in params.yaml. Q4_1 and the builder round differently: the builder's weights are
rounded a second time, and the recipe keeps some of them in 8 bits.
torch and llama.cpp choose their kernels themselves; the stages pin torch's (tunepress/core/__init__.py).

All get the same token ids, the phrases of data/raw cut to a length, in a batch the same in each sequence, and answer
with the most likely token each time, never with one that ends the answer: equal work. Each figure is the median of several
answers, with the minimum and the maximum, after a warm-up that does not count.

- load: seconds from the file to a model that takes tokens, without imports. The file has been read before: the disk is
  not measured. torch and llama.cpp map it into memory and read weights when they are first used.
- first token: milliseconds from the prompts' token ids to the first new token of each sequence, with what a runtime sets
  up for an answer; llama.cpp sets up its cache when it is loaded.
- prefill: tokens of all prompts of the batch a second, by the time to the first token.
- decode: new tokens of all sequences of the batch a second, without the first of each, by the time after it.
- peak memory: largest resident size of the process over all batch sizes, with Python, libraries and mapped files.
- disk: size of the model with its tokenizer.
- torch: of 16 beginnings of the prompt, those after which the contender chooses the same token as torch. Rounding changes
  some choices; a contender that had other tokens or other weights would agree on hardly any.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, gigabytes, main, table
from benchmarks.processes import ROOT, Figures, call, peer_python
from stages.benchmark.speed import Workload
from tunepress.core.errors import InputError
from tunepress.core.paths import BASE, MERGED, ONNX

TITLES = {"onnx": "onnxruntime-genai", "torch": "torch", "llama.cpp": "llama.cpp"}
DEFAULT = Workload(prompt_tokens=512, new_tokens=64, batch_sizes=(1, 4), repetitions=5, warm_up=1)
COLUMNS = (
    "contender",
    "batch",
    "load",
    "first token,\nms",
    "prefill,\ntokens/s",
    "decode,\ntokens/s",
    "peak\nmemory",
    "disk",
    "torch",
)


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--contender", action="append", choices=TITLES, help="only this one; may be repeated")
    parser.add_argument("--pipeline", action="store_true", help="compare models/onnx with models/merged in torch instead")
    parser.add_argument("--prompt-tokens", type=int, default=DEFAULT.prompt_tokens, metavar="N")
    parser.add_argument("--new-tokens", type=int, default=DEFAULT.new_tokens, metavar="N")
    parser.add_argument("--batch-size", type=int, action="append", metavar="N", help="only this one; may be repeated")
    parser.add_argument("--repetitions", type=int, default=DEFAULT.repetitions, metavar="N", help="answers that count")
    parser.add_argument("--warm-up", type=int, default=DEFAULT.warm_up, metavar="N", help="answers before them")


def check(options: Namespace) -> None:
    workload(options)
    contenders(options.contender, options.pipeline)
    for folder in (MERGED, ONNX) if options.pipeline else (BASE,):
        if not (ROOT / folder).is_dir():
            raise InputError(f"{folder}: not found; run `make repro` first")


def workload(options: Namespace) -> Workload:
    """What each contender has to do.

    Raises:
        InputError: a number is too small.
    """
    batch_sizes = tuple(options.batch_size or DEFAULT.batch_sizes)
    return Workload(options.prompt_tokens, options.new_tokens, batch_sizes, options.repetitions, options.warm_up)


def contenders(chosen: list[str] | None, pipeline: bool) -> list[str]:
    """The contenders to measure, in the order of TITLES.

    Raises:
        InputError: one of them cannot run the pipeline's result.
    """
    if pipeline and "llama.cpp" in (chosen or ()):
        raise InputError("--contender llama.cpp: the pipeline makes no GGUF file; leave out --pipeline")
    possible = [name for name in TITLES if not (pipeline and name == "llama.cpp")]
    return [name for name in possible if name in (chosen or possible)]


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Runs the chosen contenders on the project's models."""
    names = contenders(options.contender, options.pipeline)
    model, onnx = (ROOT / MERGED, ROOT / ONNX) if options.pipeline else (ROOT / BASE, None)
    return run_contenders(names, workload(options), model, onnx, scratch, console)


def run_contenders(
    names: list[str], workload: Workload, model: Path, onnx: Path | None, scratch: Path, console: Console
) -> Figures:
    """Lets contenders answer one after the other.

    `model` is in Hugging Face's layout, and `onnx` the same model in onnxruntime-genai's, where None builds it.
    """
    with console.status("making the models"):
        inputs, _ = call(
            "benchmarks.inference.models:make",
            scratch,
            kernels=True,
            title="the models",
            contenders=names,
            model=str(model),
            onnx=onnx and str(onnx),
            prompt_tokens=workload.prompt_tokens,
            new_tokens=workload.new_tokens,
        )
    measured = {}
    for name in names:
        python = Path(sys.executable)
        if name == "llama.cpp":
            with console.status("llama.cpp's environment: compiling takes minutes, once"):
                python = peer_python("llama_cpp", scratch, inputs["threads"])
        with console.status(f"{TITLES[name]}: answering"):
            figures, usage = call(
                "benchmarks.inference.contender:measure",
                scratch,
                kernels=False,
                title=name,
                python=python,
                contender=name,
                path=inputs["models"][name]["path"],
                prompt=inputs["prompt"],
                threads=inputs["threads"],
                workload=asdict(workload),
            )
        weights = inputs["models"][name]["weights"]
        measured[name] = {**figures, "peak_memory_mb": usage.peak_memory_mb, "weights": weights}
    compare(measured)
    return {"threads": inputs["threads"], "workload": asdict(workload), "contenders": measured}


def compare(measured: dict[str, Figures]) -> None:
    """Replaces each contender's `chosen` tokens by the number of those that are torch's, where torch was measured."""
    expected = measured["torch"]["chosen"] if "torch" in measured else None
    for figures in measured.values():
        chosen = figures.pop("chosen")
        if expected:
            same = sum(token == other for token, other in zip(chosen, expected, strict=True))
            figures["chosen_as_torch"] = {"same": same, "of": len(expected)}


def report(measured: Figures, options: Namespace | None = None) -> Iterator[RenderableType]:
    """One row for each contender, with a line for each batch size."""
    workload = measured["workload"]
    title = f"{workload['prompt_tokens']} tokens in, {workload['new_tokens']} out, {measured['threads']} threads"
    rows = []
    for name, figures in measured["contenders"].items():
        batches = [[spread(figure) for figure in figures[f"batch_{size}"].values()] for size in workload["batch_sizes"]]
        as_torch = figures.get("chosen_as_torch")
        row = (
            f"{TITLES[name]}\n{figures['weights']}",
            "\n".join(map(str, workload["batch_sizes"])),
            f"{figures['load_seconds']:.2f} s",
            *("\n".join(lines) for lines in zip(*batches, strict=True)),
            gigabytes(figures["peak_memory_mb"]),
            f"{figures['size_mb']:.0f} MB",
            f"{as_torch['same']}/{as_torch['of']}" if as_torch else "-",
        )
        rows.append(row)
    yield table(f"{title}: median (minimum-maximum) of {workload['repetitions']}", COLUMNS, rows, show_lines=True)


def spread(figure: dict[str, float]) -> str:
    """Median and extremes with three digits or more."""
    median, least, greatest = (f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in figure.values())
    return f"{median} ({least}-{greatest})"


BENCHMARK = Benchmark(
    "inference",
    __doc__,
    ("onnxruntime-genai", "onnxruntime", "torch", "transformers"),
    measure,
    report,
    add_options,
    check,
    peer="llama_cpp",
    width=130,
)

if __name__ == "__main__":
    main(BENCHMARK)
