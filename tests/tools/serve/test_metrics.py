"""Metrics: in Prometheus' format, and true."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.tools.serve.served import serving


def test_what_is_asked_is_counted(folder: Path) -> None:
    with serving(folder) as server:
        first = server.post("/v1/completions", {"prompt": ["one", "two"], "max_tokens": 5}).json()["usage"]
        second = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "three"}]}).json()["usage"]
        server.post("/v1/completions", {"prompt": "", "stream": True})
        server.get("/v1/nothing/at/all")
        metric = server.metric
        assert metric("tunepress_requests_total", route="/v1/completions", status="200") == 1
        assert metric("tunepress_requests_total", route="/v1/completions", status="400") == 1
        assert metric("tunepress_requests_total", route="/v1/chat/completions", status="200") == 1
        assert metric("tunepress_requests_total", route="unknown", status="404") == 1
        assert metric("tunepress_prompt_tokens_total") == first["prompt_tokens"] + second["prompt_tokens"]
        assert metric("tunepress_completion_tokens_total") == first["completion_tokens"] + second["completion_tokens"]
        assert metric("tunepress_time_to_first_token_seconds_count") == 3
        assert metric("tunepress_request_seconds_count", route="/v1/completions") == 2
        assert 0 < metric("tunepress_request_seconds_sum", route="/v1/completions") < 60
        assert metric("tunepress_queue_length") == metric("tunepress_cancelled_answers_total") == 0
        assert metric("tunepress_model_alive") == 1
        assert metric("tunepress_model_process_resident_memory_bytes") > metric("process_resident_memory_bytes") / 2 > 10e6


def test_the_format_is_the_one_that_it_says_it_is(folder: Path) -> None:
    with serving(folder) as server:
        response = server.get("/metrics")
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        families = {family.name: family for family in text_string_to_metric_families(response.text)}
        assert families["tunepress_request_seconds"].type == "histogram"
        assert families["tunepress_queue_length"].type == "gauge"
        assert all(family.documentation for family in families.values())


@pytest.mark.parametrize("path", ["/v1/models/any", "/health", "/metrics"])
def test_a_route_is_counted_by_its_pattern(path: str, folder: Path) -> None:
    pattern = "/v1/models/{name:path}" if path.startswith("/v1") else path
    with serving(folder) as server:
        before = server.metric("tunepress_requests_total", route=pattern)
        server.get(path)
        after = server.metric("tunepress_requests_total", route=pattern)
        assert after - before == (2 if path == "/metrics" else 1)
