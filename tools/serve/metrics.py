"""What is counted, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)


class Metrics:
    """Of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("tunepress_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.latency = Histogram(
            "tunepress_request_seconds",
            "From a request's head to the last byte of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.time_to_first_token = Histogram(
            "tunepress_time_to_first_token_seconds",
            "From a prompt's arrival to the first token of its answer, waiting included.",
            buckets=SECONDS,
            registry=registry,
        )
        self.prompt_tokens = Counter("tunepress_prompt_tokens", "Tokens of prompts read.", registry=registry)
        self.completion_tokens = Counter("tunepress_completion_tokens", "Tokens of answers written.", registry=registry)
        self.stopped = Counter(
            "tunepress_stopped_answers", "Answers given up half-way: client gone, time over, shutdown.", registry=registry
        )
        self.dropped = Counter(
            "tunepress_dropped_connections",
            "Connections closed: for too slow a client (timeout), to make room for another (full), or with no room (refused).",
            ["reason"],
            registry=registry,
        )
        self.restarts = Counter("tunepress_model_restarts", "Starts of the model's process after the first.", registry=registry)
        self._queue_length = Gauge("tunepress_queue_length", "Prompts that wait for their turn.", registry=registry)
        self._model_alive = Gauge("tunepress_model_alive", "1 while the model's process lives.", registry=registry)
        ProcessCollector(registry=registry)

    def watch(self, queue_length: Callable[[], float], alive: Callable[[], float], pid: Callable[[], int]) -> None:
        """Reads the rest from the worker whenever it is asked for; the model's process is `tunepress_model_process_*`."""
        self._queue_length.set_function(queue_length)
        self._model_alive.set_function(alive)
        ProcessCollector("tunepress_model", pid, registry=self._registry)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
