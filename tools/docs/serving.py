"""The tables about the model that is served: the server under load, ways to answer at once, and what verify lets pass."""

from collections.abc import Callable

from tools.docs.benchmarks import measured, read
from tools.docs.markdown import table
from tunepress.inference.conformance import OF_LABELS, OF_TEXTS


def serve() -> str:
    figures = read("serve")
    rows = []
    for name, run in figures["runs"].items():
        work, latency, megabytes = run["workload"], run["latency_seconds"], run["memory_mb"]
        rows.append(
            [
                f"{name}, {work['clients']} clients for {work['seconds']:.0f} s",
                f"{run['requests']}, {run['requests_per_second']:.1f} a second",
                str(run["lost"]),
                str(run["mixed_up"]),
                *(f"{latency[key]:.2f} s" for key in ("median", "p99")),
                *(f"{megabytes[key]} MB" for key in ("start", "max")),
            ]
        )
    head = ["", "answers", "lost", "mixed up", "latency, median", "latency, 99%", "memory at the start", "highest memory"]
    return table(head, rows) + measured(figures) + f" Load of the machine before: {figures['load_at_start']:.1f}."


def batching() -> str:
    figures = read("batching")
    alone = figures["ways"]["one at a time"]["seconds"]
    rows = [
        [name, f"{figures['prompts'] / way['seconds']:.1f}", f"{alone / way['seconds']:.2f}", str(way["other_answers"])]
        for name, way in figures["ways"].items()
    ]
    return table(["", "answers a second", "times one at a time", "other answers"], rows) + measured(figures)


def conformance() -> str:
    figures = read("conformance")
    allowed = {"labels": OF_LABELS, "free text": OF_TEXTS}
    rows = []
    for kind, tolerance in allowed.items():
        bounds = [f"{1 - tolerance.answers:.0%}", f"{tolerance.probability:g}"]
        rows.append([kind, "the largest that `verify` lets pass", *bounds])
        for name, changed in figures["models"][kind].items():
            rows.append([kind, name, f"{changed['different']} of {changed['prompts']}", f"{changed['changes'][-1]:.3f}"])
    return table(["answers", "", "other answers", "largest change of a probability"], rows) + measured(figures)


PARTS: dict[str, Callable[[], str]] = {f"benchmark {part.__name__}": part for part in (serve, batching, conformance)}
