"""Measures inference: onnxruntime-genai with int4 weights, torch and llama.cpp, with the same model in the same run.

    python -m benchmarks.inference                    # some seven minutes on two cores; the first time llama.cpp is compiled
    python -m benchmarks.inference --contender onnx --contender torch --prompt-tokens 64 --repetitions 3
    python -m benchmarks.inference --pipeline         # the pipeline's own result: models/onnx against models/merged in torch

Contenders run one after the other, each in a process of its own, on the CPU, with as many threads as there are cores.
llama.cpp, compiled for this machine in an environment of its own (a C++ compiler is needed), has the Q4_1 file that the
default models/base was dequantized from; torch has models/base in float32, and so the very same weights;
onnxruntime-genai has an int4 model built from models/base by the recipe in params.yaml. Q4_1 and the builder round
differently: the builder's weights are rounded a second time, and the recipe keeps some of them in 8 bits.
torch and llama.cpp choose their kernels themselves; the stages pin torch's (stages/__init__.py).

All are given the same token ids, the phrases of data/raw cut to a length, in a batch the same in each sequence, and answer
with the likeliest token each time, never with one that ends the answer: equal work. Each figure is the median of several
answers, with the least and the greatest, after a warm-up that does not count.

- load: seconds from the file to a model that takes tokens, without imports. The file has been read before: the disk is
  not measured. torch and llama.cpp map it into memory and read weights when they are first used.
- first token: milliseconds from the prompts' token ids to the first new token of each sequence, with what a runtime sets
  up for an answer; llama.cpp sets up its cache when it is loaded.
- prefill: tokens of all prompts of the batch a second, by the time to the first token.
- decode: new tokens of all sequences of the batch a second, without the first of each, by the time after it.
- peak memory: largest resident size of the process, all batch sizes in it, with Python, libraries and mapped files.
- disk: size of the model with its tokenizer.
- torch: of 16 beginnings of the prompt, those after which the contender chooses the same token as torch. Rounding turns
  some choices; a contender that was given other tokens or other weights would hardly share one.

The figures also go to benchmarks/results/inference.json; those of a run with options do not.
"""

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.children import ROOT, environment, read_json, run
from benchmarks.circumstances import circumstances, load_at_start
from benchmarks.peer_environment import peer_python
from stages.benchmark.speed import Workload
from tunepress.core.errors import InputError
from tunepress.core.files import write_json
from tunepress.core.paths import BASE, MERGED, ONNX

RESULTS = Path(__file__).resolve().parent / "results" / "inference.json"
TITLES = {"onnx": "onnxruntime-genai", "torch": "torch", "llama.cpp": "llama.cpp"}
PACKAGES = ("onnxruntime-genai", "onnxruntime", "torch", "transformers")
DEFAULT = Workload(prompt_tokens=512, new_tokens=64, batch_sizes=(1, 4), repetitions=5, warm_up=1)


def main() -> None:
    """The command line."""
    options = parse(sys.argv[1:])
    console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)
    try:
        batches = tuple(options.batch_size or DEFAULT.batch_sizes)
        workload = Workload(options.prompt_tokens, options.new_tokens, batches, options.repetitions, options.warm_up)
        names = chosen(options.contender, options.pipeline)
        model, onnx = (MERGED, ONNX) if options.pipeline else (BASE, None)
        for folder in filter(None, (model, onnx)):
            if not (ROOT / folder).is_dir():
                raise InputError(f"{folder} is missing; run `make repro` first")
        with tempfile.TemporaryDirectory(prefix="tunepress-") as scratch:
            measured = measure(console, Path(scratch), names, workload, ROOT / model, onnx and ROOT / onnx)
        console.print(table(measured))
        if (workload, names) == (DEFAULT, list(TITLES)):
            write_json(RESULTS, {**circumstances(PACKAGES, "llama_cpp"), **measured})
            console.print(f"written to {RESULTS.relative_to(ROOT)}")
    except InputError as error:
        sys.exit(f"benchmarks.inference: {error}")
    except KeyboardInterrupt:
        sys.exit("benchmarks.inference: interrupted")


def parse(arguments: list[str]) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__.splitlines()[0])
    parser.add_argument("--contender", action="append", choices=TITLES, help="only this one; may be repeated")
    parser.add_argument("--pipeline", action="store_true", help="models/onnx against models/merged in torch instead")
    parser.add_argument("--prompt-tokens", type=int, default=DEFAULT.prompt_tokens, metavar="N")
    parser.add_argument("--new-tokens", type=int, default=DEFAULT.new_tokens, metavar="N")
    parser.add_argument("--batch-size", type=int, action="append", metavar="N", help="only this one; may be repeated")
    parser.add_argument("--repetitions", type=int, default=DEFAULT.repetitions, metavar="N", help="answers that count")
    parser.add_argument("--warm-up", type=int, default=DEFAULT.warm_up, metavar="N", help="answers before them")
    return parser.parse_args(arguments)


def chosen(contenders: list[str] | None, pipeline: bool) -> list[str]:
    """The contenders to measure, in the order of TITLES.

    Raises:
        InputError: one of them cannot answer with the pipeline's result.
    """
    if pipeline and "llama.cpp" in (contenders or ()):
        raise InputError("--contender llama.cpp: the pipeline makes no GGUF file; leave out --pipeline")
    possible = [name for name in TITLES if not (pipeline and name == "llama.cpp")]
    return [name for name in possible if name in (contenders or possible)]


def measure(
    console: Console, scratch: Path, names: list[str], workload: Workload, model: Path, onnx: Path | None
) -> dict[str, Any]:
    """Lets the contenders answer one after the other.

    Args:
        console: where progress shows.
        scratch: a temporary folder.
        names: of TITLES.
        workload: what each is asked.
        model: Hugging Face's layout.
        onnx: the same model in onnxruntime-genai's; None builds it.

    Returns:
        `load_at_start` of the machine, `threads`, `workload`, and the figures by contender.
    """
    at_start = load_at_start(console)
    asked = {"contenders": names, "model": str(model), "onnx": onnx and str(onnx), **asdict(workload)}
    with console.status("making the models"):
        inputs = child("the models", scratch, "benchmarks.inference_models", asked)
    figures = {}
    for name in names:
        python = sys.executable
        if name == "llama.cpp":
            with console.status("llama.cpp's environment: compiling takes minutes, once"):
                python = str(peer_python("llama_cpp", scratch, inputs["threads"]))
        shared = {key: inputs[key] for key in ("prompt", "threads")}
        job = {"contender": name, "path": inputs["models"][name]["path"], "workload": asdict(workload), **shared}
        with console.status(f"{TITLES[name]}: answering"):
            figures[name] = child(name, scratch, "benchmarks.inference_contender", job, python)
        figures[name]["weights"] = inputs["models"][name]["weights"]
    compare(figures)
    return {"load_at_start": at_start, "threads": inputs["threads"], "workload": asdict(workload), "contenders": figures}


def child(what: str, scratch: Path, module: str, job: dict[str, Any], python: str = sys.executable) -> dict[str, Any]:
    """What a module reported of a job, and the peak memory of its process."""
    job_file, report = scratch / "job.json", scratch / "report.json"
    write_json(job_file, job)
    used = run(what, scratch, environment(scratch, kernels=False), python, "-m", module, job_file, report)
    return {**read_json(report), "peak_memory_mb": used.peak_memory_mb}


def compare(figures: dict[str, dict[str, Any]]) -> None:
    """Puts in the place of each one's `chosen` tokens how many are torch's; nothing where torch has not been asked."""
    expected = figures["torch"]["chosen"] if "torch" in figures else None
    for one in figures.values():
        chosen = one.pop("chosen")
        if expected:
            same = sum(token == other for token, other in zip(chosen, expected, strict=True))
            one["chosen_as_torch"] = {"same": same, "of": len(expected)}


def table(measured: dict[str, Any]) -> Table:
    """One row for each contender, with a line for each batch size."""
    workload = measured["workload"]
    title = f"{workload['prompt_tokens']} tokens in, {workload['new_tokens']} out, {measured['threads']} threads"
    columns = Table(title=f"{title}: median (least-greatest) of {workload['repetitions']}", show_lines=True)
    columns.add_column("contender", no_wrap=True)
    for name in ("batch", "load", "first token,\nms", "prefill,\ntokens/s", "decode,\ntokens/s", "peak\nmemory", "disk", "torch"):
        columns.add_column(name, justify="right", no_wrap=True)
    for name, one in measured["contenders"].items():
        batches = [[spread(figure) for figure in one[f"batch_{size}"].values()] for size in workload["batch_sizes"]]
        as_torch = one.get("chosen_as_torch")
        columns.add_row(
            f"{TITLES[name]}\n{one['weights']}",
            "\n".join(map(str, workload["batch_sizes"])),
            f"{one['load_seconds']:.2f} s",
            *("\n".join(lines) for lines in zip(*batches, strict=True)),
            f"{one['peak_memory_mb'] / 1000:.2f} GB",
            f"{one['size_mb']:.0f} MB",
            f"{as_torch['same']}/{as_torch['of']}" if as_torch else "-",
        )
    return columns


def spread(figure: dict[str, float]) -> str:
    """Median and extremes with three digits or more."""
    median, least, greatest = (f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in figure.values())
    return f"{median} ({least}-{greatest})"


if __name__ == "__main__":
    main()
