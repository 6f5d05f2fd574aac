"""The server's metrics, in Prometheus' format."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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

    def watch(self, queue_length: Callable[[], float], alive: Callable[[], float], pid: Callable[[], int]) -> None:
        """Reads the worker's state at each scrape; the model process is `tunepress_model_process_*`."""
        self._queue_length.set_function(queue_length)
        self._model_alive.set_function(alive)
        ProcessCollector("tunepress_model", pid, registry=self._registry)

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
