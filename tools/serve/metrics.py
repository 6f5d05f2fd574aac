"""The server's metrics, in Prometheus' format."""

import time
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from tools.serve.workers.queue import Queue

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("tunepress_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.latency = Histogram(
            "tunepress_request_seconds",
            "Time from the head of a request to the last byte of its response.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.time_to_first_token = Histogram(
            "tunepress_time_to_first_token_seconds",
            "Time from the arrival of a prompt to the first token of its answer, including the time in the queue.",
            buckets=SECONDS,
            registry=registry,
        )
        self.prompt_tokens = Counter("tunepress_prompt_tokens", "Tokens of prompts read.", registry=registry)
        self.completion_tokens = Counter("tunepress_completion_tokens", "Tokens of answers generated.", registry=registry)
        self.cancelled = Counter(
            "tunepress_cancelled_answers",
            "Answers cancelled before they were complete: client disconnected, timeout, shutdown.",
            registry=registry,
        )
        self.dropped = Counter(
            "tunepress_dropped_connections",
            "Connections closed: the client was too slow (timeout), made room for another (full), or found no room (refused).",
            ["reason"],
            registry=registry,
        )
        self.restarts = Counter("tunepress_model_restarts", "Starts of the model process after the first.", registry=registry)
        self._queue_length = Gauge("tunepress_queue_length", "Prompts in the queue.", registry=registry)
        self._model_alive = Gauge("tunepress_model_alive", "1 while the model is loaded.", registry=registry)
        ProcessCollector(registry=registry)

    def watch(self, queue: "Queue") -> None:
        """Reads the state at each scrape; model processes are `tunepress_model_process_*`, `tunepress_model_2_process_*` ..."""
        self._queue_length.set_function(lambda: len(queue))
        self._model_alive.set_function(lambda: queue.alive)
        for number, worker in enumerate(queue.workers, start=1):
            namespace = f"tunepress_model_{number}" if number > 1 else "tunepress_model"
            ProcessCollector(namespace, partial(getattr, worker, "pid"), registry=self._registry)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class MetricsMiddleware:
    """Counts every request by its route and status, and measures how long it took."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 500

        async def send_and_keep_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_keep_status)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.latency.labels(route).observe(time.monotonic() - start)
