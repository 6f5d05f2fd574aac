"""The tables that are made from benchmarks/results/*.json."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.docs.markdown import table
from tunepress.core.errors import InputError
from tunepress.inference.metrics import wilson_bounds

RESULTS = Path("benchmarks/results")
TRAINERS = {
    "tunepress": "`python -m stages.train`",
    "trainer": "Trainer, padded, all logits",
    "olive-checkpointing": "Olive's LoRA pass, join, 512 tokens",
    "olive": "the same without its gradient checkpointing",
}
RUNTIMES = {
    "onnx": "onnxruntime-genai, int4",
    "torch": "torch, float32",
    "llama.cpp": "llama.cpp, Q4_1",
}

Figures = dict[str, Any]


def read(name: str) -> Figures:
    """The results of `python -m benchmarks.NAME`.

    Raises:
        InputError: there is no such file, or it is not JSON.
    """
    path = RESULTS / f"{name}.json"
    try:
        figures: Figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}; run `python -m benchmarks.{name}` or restore the file from git") from error
    return figures


def measured(figures: Figures) -> str:
    """Where and when something was measured, as the line under its table."""
    versions = ", ".join(f"{name} {version.partition('+')[0]}" for name, version in figures["packages"].items())
    return f"\n\nMeasured on {figures['date'][:10]} on {figures['cores']} cores of an {figures['cpu']} with {versions}."


def prepare() -> str:
    figures = read("prepare")
    seconds = figures["process_seconds"]
    row = [
        f"{figures['rows']:,}",
        f"{seconds:.0f} s",
        f"{figures['rows'] / seconds:,.0f}",
        f"{figures['peak_memory_mb'] / 1000:.1f} GB",
    ]
    head = [f"rows of {figures['words']} words", "seconds, with imports", "rows per second", "peak memory"]
    return table(head, [row]) + measured(figures)


def chat() -> str:
    figures = read("chat")
    rows = [
        [
            model,
            f"{metrics['exact_match']:.3f} ({metrics['exact_match_low']:.3f} to {metrics['exact_match_high']:.3f})",
            f"{metrics['rouge_l']:.3f}",
            f"{metrics['perplexity']:.2f}",
            f"{metrics['tool_call_accuracy'] * metrics['tool_calls']:.0f} of {metrics['tool_calls']}",
            f"{metrics['seconds']:.0f} s",
        ]
        for model, metrics in figures["candidates"].items()
    ]
    head = ["", "exact match", "ROUGE-L", "perplexity", "right function calls", "evaluated in"]
    splits = figures["splits"]
    trained = f" {splits['train']} training dialogues, trained in {figures['training_seconds'] / 60:.0f} minutes"
    tested = f" with {figures['peak_memory_mb'] / 1000:.1f} GB; {splits['test']} test dialogues."
    return table(head, rows) + measured(figures) + trained + tested


def train() -> str:
    figures = read("train")
    rows = [
        [
            name,
            f"{measurement['training_seconds']:.0f} s",
            f"{measurement['real_tokens_per_second']:.0f}",
            f"{measurement['share_of_matrix_rate']:.0%}",
            f"{measurement['peak_memory_mb'] / 1000:.1f} GB",
            f"{measurement['right'] / measurement['test_rows']:.3f}",
        ]
        for name, measurement in ((name, figures["contenders"][key]) for key, name in TRAINERS.items())
    ]
    head = ["", "training", "real tokens/s", "share of the matrix rate", "peak memory", "accuracy of the merged model"]
    return table(head, rows) + measured(figures)


def memory() -> str:
    merge, build = read("merge"), read("build")
    rows = [
        [name, *(cell for figures, key in ((merge, other), (build, theirs)) for cell in cost(figures["contenders"][key]))]
        for name, other, theirs in (("this project", "tunepress", "tunepress"), ("peft; the builder alone", "peft", "builder"))
    ]
    shape = (
        f"Random bfloat16 weights in the shape of {merge['shape']}, {merge['made']['parameters'] / 1e9:.1f} billion parameters."
    )
    head = [
        "",
        f"`python -m benchmarks.merge`, r={merge['made']['r']}",
        "peak memory",
        "`python -m benchmarks.build`",
        "peak memory",
    ]
    copy = f" Copying the same files takes {merge['contenders']['copy']['process_seconds']:.0f} s."
    return table(head, rows) + measured(build) + f" {shape}{copy}"


def cost(figures: Figures) -> tuple[str, str]:
    return f"{figures['process_seconds']:.0f} s", f"{figures['peak_memory_mb'] / 1000:.1f} GB"


def full_size() -> str:
    runs = [read(path.stem) for path in sorted(RESULTS.glob("full_size*.json"))]
    head = ["", *(", ".join([run["shape"], f"`{run['experiment']}`", *run.get("overrides", [])]) for run in runs)]
    stages = max((run["stages"] for run in runs), key=len)  # of some runs there are the first stages alone
    rows = [
        [stage, *(" · ".join(cost(run["stages"][stage])) if stage in run["stages"] else "" for run in runs)] for stage in stages
    ]
    planned = ", ".join(f"{run['stages']['train']['planned_gb']:.1f} GB" for run in runs)
    note = f" Random bfloat16 weights. Memory that `train` had planned: {planned}."
    return table(head, rows) + measured(runs[0]) + note


def recipes() -> str:
    figures = read("recipes")
    rows = [
        [
            f"`{name}`",
            f"{recipe['parameters'] / 1e9:.2f} billion",
            f"{recipe['bytes'] / 1e9:.0f} GB",
            f"{recipe['seconds'] / 60:.0f} min",
        ]
        for name, recipe in figures["recipes"].items()
    ]
    gpu = figures["gpu"]
    head = ["`-S +experiment=`", "parameters", "memory", "a million tokens"]
    return table(head, rows) + (
        f"\n\nEstimates by `python -m benchmarks.recipes` for an {gpu['name']} ({gpu['memory_gb']} GB, "
        f"{gpu['bf16_tflops']:.0f} TFLOP/s in bfloat16), as `train` makes them before it starts. No GPU has confirmed them."
    )


def gptq() -> str:
    figures = read("gptq")
    layers = figures["of_layers"]
    row = [
        f"{figures['seconds_a_layer']:.0f} s",
        f"{figures['seconds_a_layer'] * layers / 60:.0f} minutes",
        f"{figures['peak_memory_mb'] / 1000:.1f} GB",
    ]
    shape = f" Random weights in the shape of {figures['shape']}, {figures['layers']} layers, {figures['rows']} training rows."
    return table(["a layer", f"all {layers} layers, extrapolated", "peak memory"], [row]) + measured(figures) + shape


def inference() -> str:
    figures = read("inference")
    rows = []
    for key, name in RUNTIMES.items():
        measurement = figures["contenders"][key]
        alone, four = measurement["batch_1"], measurement["batch_4"]
        rows.append(
            [
                name,
                f"{alone['time_to_first_token_ms']['median'] / 1000:.2f} s",
                *(f"{alone[f'{phase}_tokens_per_second']['median']:.0f} tokens/s" for phase in ("prefill", "decode")),
                f"{four['decode_tokens_per_second']['median']:.0f} tokens/s",
                f"{measurement['load_seconds']:.2f} s",
                f"{measurement['peak_memory_mb'] / 1000:.2f} GB",
                f"{measurement['size_mb']:.0f} MB",
                "{same} of {of}".format(**measurement["chosen_as_torch"]),
            ]
        )
    head = [
        "",
        "first token",
        "prefill",
        "decode",
        "decode, batch of 4",
        "load",
        "peak memory",
        "size on disk",
        "same token as torch",
    ]
    work = figures["workload"]
    prompt = f" {work['prompt_tokens']} prompt tokens, {work['new_tokens']} new tokens, medians of {work['repetitions']}."
    return table(head, rows) + measured(figures) + prompt


def busy() -> str:
    figures = read("busy")
    rows = [
        [neighbours, f"{speed['training_steps']:.2f}", f"{speed['evaluated_rows']:.2f}"]
        for neighbours, speed in figures["neighbours"].items()
    ]
    head = ["other processes that keep a core busy", "training steps a second", "rows evaluated with the int4 model a second"]
    return table(head, rows) + measured(figures)


def extract() -> str:
    figures = read("extract")
    rows = [
        [
            name.replace("_", "-"),
            f"{metrics['exact_match']:.3f} ({metrics['exact_match_low']:.3f} to {metrics['exact_match_high']:.3f})",
            *(f"{metrics[key]:.3f}" for key in ("field_accuracy", "schema_valid_rate")),
            *(f"{metrics['unguided'][key]:.3f}" if "unguided" in metrics else "" for key in ("exact_match", "schema_valid_rate")),
        ]
        for name, metrics in (figures["baselines"] | figures["candidates"]).items()
    ]
    head = ["", "exact match", "fields right", "schema valid", "exact match without guidance", "schema valid without guidance"]
    speed, splits = figures["guidance"], figures["splits"]
    seconds = f" An answer of onnx takes {speed['guided_seconds']:.2f} s, without guidance {speed['free_seconds']:.2f} s."
    trained = f" {splits['train']} training e-mails, trained in {figures['training_seconds'] / 60:.0f} minutes;"
    return table(head, rows) + measured(figures) + trained + f" {splits['test']} test e-mails." + seconds


def tasks() -> str:
    figures = read("tasks")
    names = {"project": "this project", "backend": "lm-evaluation-harness's Hugging Face backend"}
    rows = [
        [names[name], f"{used['accuracy']:.2f}", f"{used['mean_logprob']:.4f}", f"{used['work_seconds']:.0f} s"]
        for name, used in figures["contenders"].items()
    ]
    return table(["", "accuracy", "mean log-probability of a choice", "time"], rows) + measured(figures)


def olive() -> str:
    figures = read("olive")
    rows = []
    for key, name in (("tunepress", "this project"), ("olive", f"Olive {figures['olive_packages']['olive-ai']}")):
        measurement = figures["contenders"][key]
        same = measurement["same_bytes"]
        noticed = "noticed" if measurement["edit_noticed"] else "not noticed"
        rows.append(
            [
                name,
                *(f"{measurement['seconds'][step]:.0f} s" for step in ("train", "merge", "build")),
                f"{measurement['whole_seconds']:.0f} s",
                f"{measurement['peak_memory_mb'] / 1000:.1f} GB",
                f"{measurement['size_mb']:.0f} MB",
                *(accuracy(measurement, model) for model in ("merged", "int4")),
                "the same bytes"
                if all(same.values())
                else f"other {', other '.join(n for n, equal in same.items() if not equal)}",
                f"{noticed}, {measurement['edit_seconds']:.0f} s",
            ]
        )
    head = ["", "train", "merge", "build", "all, with imports", "peak memory", "int4 on disk"]
    head += ["merged accuracy", "int4 accuracy", "two runs", "an edited row"]
    rows_line = f" {figures['rows']} training rows, {len(figures['seeds'])} trainings, seconds of the first."
    return table(head, rows) + measured(figures) + rows_line


def accuracy(measurement: Figures, model: str) -> str:
    """A share of right answers with Wilson's interval."""
    low, high = wilson_bounds(measurement["right"][model], measurement["test_rows"], 0.95)
    return f"{measurement['right'][model] / measurement['test_rows']:.3f} ({low:.3f} to {high:.3f})"


PARTS: dict[str, Callable[[], str]] = {
    f"benchmark {part.__name__}": part
    for part in (
        prepare,
        train,
        chat,
        extract,
        tasks,
        memory,
        full_size,
        recipes,
        gptq,
        inference,
        busy,
        olive,
    )
}
