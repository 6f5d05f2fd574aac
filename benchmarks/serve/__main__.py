"""Lets many clients ask the HTTP service: is an answer lost or another request's, how long does an answer take, does memory grow.

    python -m benchmarks.serve                        # all workloads, on models/onnx; some five minutes
    python -m benchmarks.serve --shape tiny --seconds 5 --clients 8

The server is started on a free port of this machine; clients are OpenAI's own, all in one process beside it, so they use
some of the cores too. Each asks again as soon as it has its answer, and each answer must be the one that a single client got
before. The workloads:

- answers: alternately a completion of half a phrase of data/raw, at temperature 1 and with its own seed, so that no two answers
  are alike, and a chat message whose answer is streamed.
- labels: /v1/classify of a phrase. With two processes, each has half of the cores.

- lost: requests without an answer, or with an error.
- mixed up: answers that differ from the single client's; `distinct` of its answers differ from one another.
- latency: seconds from a request to the last byte of its answer; with as many clients as here most of it is waiting.
- memory: resident MB of the server's processes together, each second; the mean of each quarter of the time.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
from openai import APIError, AsyncOpenAI
from rich.console import Console, RenderableType
from rich.table import Table

from benchmarks.harness import Benchmark, main
from benchmarks.processes import ROOT, Figures, call, environment
from tunepress.core.errors import InputError, one_line
from tunepress.core.paths import ONNX

PHRASES = ROOT / "data/raw/tone.jsonl"
TIMEOUT = 600  # seconds that a client waits


@dataclass(frozen=True)
class Workload:
    """What the clients ask."""

    clients: int  # at once
    seconds: float  # until no client asks again
    phrases: int = 32
    max_tokens: int = 16  # of a completion
    labels: bool = False  # /v1/classify instead of completions and chat messages
    processes: int = 1  # of the server


WORKLOADS = {
    "answers": Workload(50, 120),
    "labels": Workload(16, 60, labels=True),
    "labels, two processes": Workload(16, 60, labels=True, processes=2),
}


@dataclass
class Measured:
    """What the clients measured."""

    seconds: float = 0  # until the last answer
    latencies: list[float] = field(default_factory=list)  # seconds of each answer
    lost: list[str] = field(default_factory=list)  # the error of each request without an answer
    mixed_up: int = 0  # answers that were not the single client's
    memory_mb: list[float] = field(default_factory=list)  # of the server, each second


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--clients", type=int, metavar="N", help="at once (default: 50, and 16 for labels)")
    parser.add_argument("--seconds", type=float, metavar="N", help="until no client asks again (default: 120, and 60 for labels)")
    parser.add_argument("--shape", choices=("pipeline", "tiny"), default="pipeline", help="tiny: a random model made on the spot")
    parser.add_argument("--model", type=Path, default=ROOT / ONNX, metavar="FOLDER", help="instead of models/onnx")


def check(options: Namespace) -> None:
    if (options.clients is not None and options.clients < 1) or (options.seconds is not None and options.seconds <= 0):
        raise InputError("--clients and --seconds: must be more than 0")
    if options.shape == "pipeline" and not options.model.is_dir():
        raise InputError(f"{options.model}: not found; run `make repro` first, or use --shape tiny")


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Runs the workloads; a tiny model has no labels."""
    changed = {name: value for name in ("clients", "seconds") if (value := getattr(options, name)) is not None}
    tiny = options.shape == "tiny"
    workloads = {name: replace(workload, **changed) for name, workload in WORKLOADS.items() if not (tiny and workload.labels)}
    model = None if tiny else options.model
    return {"runs": {name: run_clients(model, workload, scratch, console) for name, workload in workloads.items()}}


def run_clients(model: Path | None, workload: Workload, scratch: Path, console: Console) -> Figures:
    """Starts a server of an ONNX model, where None makes a tiny random one, and lets the clients ask."""
    if model is None:
        with console.status("making the model"):
            made, _ = call("benchmarks.serve.letters_model:make", scratch, kernels=True, title="the model")
        model = Path(made["model"])
    with serving(model, scratch, workload) as (url, server):
        requests = requests_of(workload)
        measured, expected = asyncio.run(ask(console, url, server, requests, workload))
    return {"workload": asdict(workload), "distinct": len(set(expected)), **figures(measured)}


@contextmanager
def serving(model: Path, scratch: Path, workload: Workload) -> Iterator[tuple[str, psutil.Process]]:
    """A server with room for all clients: its address and its process.

    Raises:
        InputError: it does not start.
    """
    options = ["--model", str(model.resolve()), "--port", "0", "--queue", str(max(workload.clients, 16))]
    options += ["--processes", str(workload.processes)]
    variables = environment(scratch, kernels=False)
    variables.pop("TUNEPRESS_API_KEY", None)
    path = scratch / "server.log"  # a pipe that nobody reads would be full after 1,000 lines of the access log
    with path.open("w") as log:
        command = [sys.executable, "-m", "tools.serve", *options]
        server = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=subprocess.STDOUT)
    try:
        while not (address := re.search(r"serving .* at (http://\S+)\n", path.read_text())):
            if server.poll() is not None:
                raise InputError(f"the server did not start: {path.read_text().strip().splitlines()[-1]}")
            time.sleep(0.1)
        yield address[1], psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


class Request(Protocol):
    """What a client asks."""

    async def send(self, client: AsyncOpenAI) -> str:
        """Returns the answer."""


@dataclass(frozen=True)
class HalfPhrase:
    """A completion of half a phrase."""

    phrase: str
    seed: int
    max_tokens: int

    async def send(self, client: AsyncOpenAI) -> str:
        half = self.phrase[: len(self.phrase) // 2]
        completion = await client.completions.create(
            model="tunepress", prompt=half, max_tokens=self.max_tokens, temperature=1, seed=self.seed
        )
        return completion.choices[0].text


@dataclass(frozen=True)
class Message:
    """A chat message whose answer is streamed."""

    phrase: str

    async def send(self, client: AsyncOpenAI) -> str:
        chunks = await client.chat.completions.create(
            model="tunepress", messages=[{"role": "user", "content": self.phrase}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


@dataclass(frozen=True)
class Phrase:
    """A phrase whose label is asked for."""

    phrase: str

    async def send(self, client: AsyncOpenAI) -> str:
        response: Any = await client.post("/classify", body={"text": self.phrase}, cast_to=object)
        return str(response["data"][0]["label"])


def requests_of(workload: Workload) -> list[Request]:
    """What the clients ask in turn."""
    texts = phrases(workload.phrases)
    if workload.labels:
        return list(map(Phrase, texts))
    return [
        request for seed, text in enumerate(texts) for request in (HalfPhrase(text, seed, workload.max_tokens), Message(text))
    ]


def phrases(number: int) -> list[str]:
    lines = PHRASES.read_text(encoding="utf-8").splitlines()[:number]
    return [json.loads(line)["phrase"] for line in lines]


async def ask(
    console: Console, url: str, server: psutil.Process, requests: list[Request], workload: Workload
) -> tuple[Measured, list[str]]:
    """What the clients measured, and the answers that a single client got."""
    measured, numbers = Measured(), count()
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT) as client:
        with console.status("a single client is asking"):
            expected = [await request.send(client) for request in requests]
        end = time.monotonic() + workload.seconds

        async def client_loop() -> None:
            while time.monotonic() < end:
                number = next(numbers) % len(requests)
                start = time.monotonic()
                try:
                    answer = await requests[number].send(client)
                except (APIError, OSError) as error:
                    measured.lost.append(one_line(error))
                    await asyncio.sleep(0.1)  # a server that is gone refuses thousands a second
                else:
                    measured.latencies.append(time.monotonic() - start)
                    measured.mixed_up += answer != expected[number]

        async def watch() -> None:
            while True:
                measured.memory_mb.append(resident_mb(server))
                await asyncio.sleep(1)

        with console.status(f"{workload.clients} clients are asking for {workload.seconds:.0f} seconds"):
            watching, start = asyncio.ensure_future(watch()), time.monotonic()
            await asyncio.gather(*(client_loop() for _ in range(workload.clients)))
            measured.seconds = time.monotonic() - start
            watching.cancel()
    return measured, expected


def resident_mb(server: psutil.Process) -> float:
    """Memory of the server's processes together, in MB of 1,000,000 bytes; 0 after its end."""
    try:
        return sum(process.memory_info().rss for process in (server, *server.children())) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def figures(measured: Measured) -> Figures:
    """The figures of the results."""
    latencies = np.array(measured.latencies or [np.nan])
    median, p95, p99 = np.percentile(latencies, [50, 95, 99])
    latency = {"median": median, "p95": p95, "p99": p99, "max": latencies.max()}
    quarters = np.array_split(np.array(measured.memory_mb), 4)
    return {
        "seconds": round(measured.seconds, 1),
        "requests": len(measured.latencies) + len(measured.lost),
        "lost": len(measured.lost),
        "mixed_up": measured.mixed_up,
        "reasons": sorted(set(measured.lost))[:5],
        "requests_per_second": round(len(measured.latencies) / measured.seconds, 3),
        "latency_seconds": {name: round(float(value), 3) for name, value in latency.items()},
        "memory_mb": {
            "start": round(measured.memory_mb[0]),
            "quarters": [round(float(quarter.mean())) for quarter in quarters if len(quarter)],
            "max": round(max(measured.memory_mb)),
        },
    }


def report(measured: Figures, options: Namespace | None = None) -> Iterator[RenderableType]:
    """All figures, one a line, in a table for each workload."""
    for name, figures in measured["runs"].items():
        workload, latency, memory = figures["workload"], figures["latency_seconds"], figures["memory_mb"]
        rows = Table(title=f"{name}: {workload['clients']} clients for {workload['seconds']:.0f} seconds", show_header=False)
        rows.add_row("requests", f"{figures['requests']}, {figures['requests_per_second']:.1f} a second")
        rows.add_row("lost", str(figures["lost"]))
        rows.add_row("mixed up", f"{figures['mixed_up']}, with {figures['distinct']} distinct answers")
        rows.add_row("latency, s", ", ".join(f"{name} {value:.2f}" for name, value in latency.items()))
        quarters = ", ".join(map(str, memory["quarters"]))
        rows.add_row("memory, MB", f"{memory['start']} at the start, {quarters} in the quarters, {memory['max']} at most")
        yield rows


def failure(measured: Figures) -> str | None:
    wrong = [
        f"{name}: {figures['lost']} lost, {figures['mixed_up']} mixed up {figures['reasons']}"
        for name, figures in measured["runs"].items()
        if figures["lost"] or figures["mixed_up"]
    ]
    return "; ".join(wrong) or None


BENCHMARK = Benchmark(
    "serve",
    __doc__,
    ("onnxruntime-genai", "onnxruntime", "fastapi", "uvicorn", "openai"),
    measure,
    report,
    add_options,
    check,
    failure,
    width=130,
)

if __name__ == "__main__":
    main(BENCHMARK)
