"""Holds many clients against the HTTP service: is an answer lost or another's, how long does one take, does memory stay.

    python -m benchmarks.serve                        # 50 clients for two minutes, on models/onnx
    python -m benchmarks.serve --shape tiny --seconds 5 --clients 8

The server is started on a free port of this machine; clients are OpenAI's own, all in one process beside it, so they take
some of the cores too. Each asks again as soon as it has its answer, in turns for half a phrase of data/raw to be gone on with, at
temperature 1 and with a seed of its own, so that no two answers are alike, and in a chat message whose answer is streamed.
What a lone client was answered before is what each must be answered.

- lost: requests without an answer, or with an error.
- mixed up: answers that differ from the lone client's; `distinct` of its answers differ from one another.
- latency: seconds from a request to the last byte of its answer; with as many clients as here most of it is waiting.
- memory: resident MB of the server's processes together, each second; the mean of each quarter of the time.

The figures also go to benchmarks/results/serve.json; those of a run with options do not.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from openai import APIError, AsyncOpenAI
from rich.console import Console
from rich.table import Table

from benchmarks.children import ROOT, environment, run
from benchmarks.circumstances import circumstances, load_at_start
from tunepress.core.errors import InputError, one_line
from tunepress.core.files import write_json
from tunepress.core.paths import ONNX

RESULTS = Path(__file__).resolve().parent / "results" / "serve.json"
PACKAGES = ("onnxruntime-genai", "onnxruntime", "fastapi", "uvicorn", "openai")
PHRASES = ROOT / "data/raw/tone.jsonl"
PATIENCE = 600  # seconds that a client waits


@dataclass(frozen=True)
class Workload:
    """What is asked of the server.

    Attributes:
        clients: at once.
        seconds: until no client asks again.
        phrases: to ask about, each as a completion and as a chat message.
        max_tokens: of a completion.
    """

    clients: int
    seconds: float
    phrases: int
    max_tokens: int


DEFAULT = Workload(clients=50, seconds=120, phrases=32, max_tokens=16)


@dataclass
class Found:
    """What the clients found.

    Attributes:
        seconds: until the last answer.
        latencies: seconds of each answer.
        lost: why, for each request without one.
        mixed_up: number of answers that were not the lone client's.
        memory_mb: of the server, each second.
    """

    seconds: float = 0
    latencies: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    mixed_up: int = 0
    memory_mb: list[float] = field(default_factory=list)


def main() -> None:
    """The command line."""
    options = parse(sys.argv[1:])
    console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)
    workload = Workload(options.clients, options.seconds, DEFAULT.phrases, DEFAULT.max_tokens)
    try:
        if workload.clients < 1 or workload.seconds <= 0:
            raise InputError("--clients and --seconds: must be more than 0")
        if options.shape == "pipeline" and not options.model.is_dir():
            raise InputError(f"{options.model} is missing; run `make repro` first, or use --shape tiny")
        with tempfile.TemporaryDirectory(prefix="tunepress-") as scratch:
            measured = measure(console, Path(scratch), options.model if options.shape == "pipeline" else None, workload)
        console.print(table(measured))
        if (workload, options.shape, options.model) == (DEFAULT, "pipeline", ROOT / ONNX):
            write_json(RESULTS, {**circumstances(PACKAGES), **measured})
            console.print(f"written to {RESULTS.relative_to(ROOT)}")
        if measured["lost"] or measured["mixed_up"]:
            sys.exit(f"benchmarks.serve: {measured['lost']} lost, {measured['mixed_up']} mixed up {measured['reasons']}")
    except InputError as error:
        sys.exit(f"benchmarks.serve: {error}")
    except KeyboardInterrupt:
        sys.exit("benchmarks.serve: interrupted")


def parse(arguments: list[str]) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=DEFAULT.clients, metavar="N", help="at once")
    parser.add_argument("--seconds", type=float, default=DEFAULT.seconds, metavar="N", help="until no client asks again")
    parser.add_argument("--shape", choices=("pipeline", "tiny"), default="pipeline", help="tiny: a random model made on the spot")
    parser.add_argument("--model", type=Path, default=ROOT / ONNX, metavar="FOLDER", help="another than models/onnx")
    return parser.parse_args(arguments)


def measure(console: Console, scratch: Path, model: Path | None, workload: Workload) -> dict[str, Any]:
    """Starts a server and lets the clients at it.

    Args:
        console: where progress shows.
        scratch: a temporary folder.
        model: folder of an ONNX model; None makes a tiny random one.
        workload: what is asked.

    Returns:
        `load_at_start` of the machine, the workload, and what the clients found.
    """
    at_start = load_at_start(console)
    if model is None:
        with console.status("making the model"):
            run(
                "the model",
                scratch,
                environment(scratch, kernels=True),
                sys.executable,
                "-m",
                "benchmarks.letters_model",
                scratch,
            )
    with serving(model or scratch / "onnx", scratch, workload.clients) as (url, server):
        numbered = enumerate(phrases(workload.phrases))
        requests = [Request(phrase, seed, streamed) for seed, phrase in numbered for streamed in (False, True)]
        found, expected = asyncio.run(held(console, url, server, requests, workload))
    return {
        "load_at_start": at_start,
        "workload": asdict(workload),
        "distinct": len(set(expected)),
        **figures(found),
    }


@contextmanager
def serving(model: Path, scratch: Path, clients: int) -> Iterator[tuple[str, psutil.Process]]:
    """A server of a model with room for all clients: its address and its process.

    Raises:
        InputError: it does not start.
    """
    options = ["--model", str(model.resolve()), "--port", "0", "--queue", str(max(clients, 16))]
    variables = environment(scratch, kernels=False)
    variables.pop("TUNEPRESS_API_KEY", None)
    with (scratch / "server.log").open("w+") as log:
        command = [sys.executable, "-m", "tools.serve", *options]
        server = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert server.stdout
            started = re.search(r"http://\S+", server.stdout.readline())
            if not started:
                raise InputError(f"the server did not start: {(scratch / 'server.log').read_text().strip().splitlines()[-1]}")
            yield started[0], psutil.Process(server.pid)
        finally:
            server.terminate()
            server.communicate()


@dataclass(frozen=True)
class Request:
    """One of those that the clients send: a completion, or a chat message whose answer is streamed."""

    phrase: str
    seed: int
    streamed: bool

    async def send(self, client: AsyncOpenAI, max_tokens: int) -> str:
        """The answer."""
        if not self.streamed:
            half = self.phrase[: len(self.phrase) // 2]
            completion = await client.completions.create(
                model="tunepress", prompt=half, max_tokens=max_tokens, temperature=1, seed=self.seed
            )
            return completion.choices[0].text
        chunks = await client.chat.completions.create(
            model="tunepress", messages=[{"role": "user", "content": self.phrase}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


def phrases(number: int) -> list[str]:
    """The first of data/raw."""
    lines = PHRASES.read_text(encoding="utf-8").splitlines()[:number]
    return [json.loads(line)["phrase"] for line in lines]


async def held(
    console: Console, url: str, server: psutil.Process, requests: list[Request], workload: Workload
) -> tuple[Found, list[str]]:
    """What the clients found, and what the lone one was answered to each request."""
    found, numbers = Found(), count()
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=PATIENCE) as client:
        with console.status("a lone client is asking"):
            expected = [await request.send(client, workload.max_tokens) for request in requests]
        end = time.monotonic() + workload.seconds

        async def ask() -> None:
            while time.monotonic() < end:
                number = next(numbers) % len(requests)
                start = time.monotonic()
                try:
                    answer = await requests[number].send(client, workload.max_tokens)
                except (APIError, OSError) as error:
                    found.lost.append(one_line(error))
                    await asyncio.sleep(0.1)  # a server that is gone refuses thousands a second
                else:
                    found.latencies.append(time.monotonic() - start)
                    found.mixed_up += answer != expected[number]

        async def watch() -> None:
            while True:
                found.memory_mb.append(resident_mb(server))
                await asyncio.sleep(1)

        with console.status(f"{workload.clients} clients are asking for {workload.seconds:.0f} seconds"):
            watching, start = asyncio.ensure_future(watch()), time.monotonic()
            await asyncio.gather(*(ask() for _ in range(workload.clients)))
            found.seconds = time.monotonic() - start
            watching.cancel()
    return found, expected


def resident_mb(server: psutil.Process) -> float:
    """Of the server's processes together, in MB of 1,000,000 bytes; 0 where it is gone."""
    try:
        return sum(process.memory_info().rss for process in (server, *server.children())) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def figures(found: Found) -> dict[str, Any]:
    """What was found, in figures."""
    latencies = np.array(found.latencies or [np.nan])
    median, p95, p99 = np.percentile(latencies, [50, 95, 99])
    quarters = np.array_split(np.array(found.memory_mb), 4)
    return {
        "seconds": round(found.seconds, 1),
        "requests": len(found.latencies) + len(found.lost),
        "lost": len(found.lost),
        "mixed_up": found.mixed_up,
        "reasons": sorted(set(found.lost))[:5],
        "requests_per_second": round(len(found.latencies) / found.seconds, 3),
        "latency_seconds": {
            "median": round(float(median), 3),
            "p95": round(float(p95), 3),
            "p99": round(float(p99), 3),
            "max": round(float(latencies.max()), 3),
        },
        "memory_mb": {
            "start": round(found.memory_mb[0]),
            "quarters": [round(float(quarter.mean())) for quarter in quarters if len(quarter)],
            "max": round(max(found.memory_mb)),
        },
    }


def table(measured: dict[str, Any]) -> Table:
    """All figures."""
    workload, latency, memory = measured["workload"], measured["latency_seconds"], measured["memory_mb"]
    rows = Table(title=f"{workload['clients']} clients for {workload['seconds']:.0f} seconds", show_header=False)
    rows.add_row("requests", f"{measured['requests']}, {measured['requests_per_second']:.1f} a second")
    rows.add_row("lost", str(measured["lost"]))
    rows.add_row("mixed up", f"{measured['mixed_up']}, by {measured['distinct']} distinct answers")
    rows.add_row("latency, s", ", ".join(f"{name} {value:.2f}" for name, value in latency.items()))
    quarters = ", ".join(map(str, memory["quarters"]))
    rows.add_row("memory, MB", f"{memory['start']} at the start, {quarters} in the quarters, {memory['max']} at most")
    return rows


if __name__ == "__main__":
    main()
