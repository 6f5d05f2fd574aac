"""A server in its own process, as users start it."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
from openai import AsyncOpenAI, OpenAI
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[3]
ENDLESS = {"prompt": "a", "max_tokens": 8000}  # for a model that never ends an answer


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.process, self.url, self._log = process, url, log

    def openai(self, key: str = "none") -> OpenAI:
        """OpenAI's own client, without retries."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=100)

    def async_openai(self) -> AsyncOpenAI:
        """The same for many requests at once."""
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=100)

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(self.url + path, timeout=100)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx2.Response:
        """A POST of JSON, or of `content=`."""
        return httpx2.post(self.url + path, **({"json": body} if body is not None else {}), timeout=100, **options)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a sample in /metrics, 0 if it does not exist yet."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def model_pid(self) -> int:
        """The id of the model process."""
        children = psutil.Process(self.process.pid).children()
        return next(child.pid for child in children if "spawn_main" in " ".join(child.cmdline()))

    def end(self, signal: int) -> int:
        """Sends a signal; returns the exit code."""
        self.process.send_signal(signal)
        return self.process.wait(100)

    def log(self) -> str:
        """What it has printed so far, except the first line."""
        return self._log.read_text(encoding="utf-8")


@contextmanager
def serving(folder: Path, *options: str, limit: int | None = None, **variables: str) -> Iterator[Server]:
    """Runs a server of a model folder on a free port; `limit` is its limit of open files."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        with log.open("w") as errors:
            process = start(folder, *options, errors=errors, limit=limit, **variables)
        try:
            assert process.stdout
            line = process.stdout.readline()
            address = re.fullmatch(r"serving .* at (http://\S+)\n", line)
            assert address, line + log.read_text()
            server = Server(process, address[1], log)
            until(lambda: reachable(server))
            yield server
        finally:
            process.terminate()
            try:
                process.wait(60)
            finally:
                process.kill()
                process.communicate()


def start(
    folder: Path, *options: str, errors: Any = subprocess.PIPE, limit: int | None = None, **variables: str
) -> subprocess.Popen[str]:
    """`python -m tools.serve`."""
    limited = ["sh", "-c", f'ulimit -S -n {limit} && exec "$@"', "sh"] if limit else []
    command = [*limited, sys.executable, "-m", "tools.serve", "--model", str(folder), "--port", "0", *options]
    inherited = {name: value for name, value in os.environ.items() if name != "TUNEPRESS_API_KEY"}
    environment = {**inherited, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)


def reachable(server: Server) -> bool:
    """Whether the server answers."""
    try:
        server.get("/health")
    except httpx2.ConnectError:
        return False
    return True


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def connected(server: Server) -> socket.socket:
    """A connection that a test can close."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def send(connection: socket.socket, body: dict[str, Any], path: str = "/v1/completions") -> None:
    """Sends a request without waiting for the response."""
    content = json.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall((head + content).encode())


def written(server: Server) -> float:
    """The number of answer tokens so far."""
    return server.metric("tunepress_completion_tokens_total")
