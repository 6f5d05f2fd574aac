"""The benchmark of the experiment chat: what it prints and what it keeps. Running it takes half an hour."""

from typing import Any

from rich.console import Console

from benchmarks import chat
from benchmarks.harness import parse


def test_each_model_has_its_line() -> None:
    scores: dict[str, Any] = {"exact_match": 0.25, "rouge_l": 0.5, "perplexity": 3.0, "tool_call_accuracy": 0.125, "seconds": 9.0}
    figures = {
        "splits": {"test": 7},
        "training_seconds": 100.0,
        "peak_memory_mb": 4000,
        "candidates": dict.fromkeys(chat.MODELS, scores),
    }
    console = Console(width=100)
    with console.capture() as shown:
        for part in chat.report(figures, parse(chat.BENCHMARK, [])):
            console.print(part)
    lines = [line.replace(" ", "").strip("│").split("│") for line in shown.get().splitlines() if line.startswith("│")]
    assert lines == [[model, "0.250", "0.500", "3.00", "0.125", "9s"] for model in chat.MODELS]
    assert "7 test rows, 100 s of training, 4.00 GB" in shown.get()
