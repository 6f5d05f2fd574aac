"""The load test of the service: a short run finds nothing lost, and what would be lost or mixed up is counted."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.serve import __main__ as serve
from tunepress.core.errors import InputError

WORKLOAD = serve.Workload(clients=8, seconds=3, phrases=16, max_tokens=16)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a short run on a tiny model reports."""
    return serve.run_clients(None, WORKLOAD, tmp_path_factory.mktemp("serve"), Console(quiet=True))


def test_no_answer_is_lost_or_mixed_up(measured: dict[str, Any]) -> None:
    assert (measured["lost"], measured["mixed_up"], measured["reasons"]) == (0, 0, [])
    assert measured["distinct"] >= 25  # of 32 requests
    assert measured["requests"] > 50


def test_every_figure_is_there(measured: dict[str, Any]) -> None:
    latency, memory = measured["latency_seconds"], measured["memory_mb"]
    assert 0 < latency["median"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    assert measured["requests_per_second"] == pytest.approx(measured["requests"] / measured["seconds"], rel=0.05)
    assert 50 < memory["start"] <= memory["max"]
    assert len(memory["quarters"]) >= 3
    console = Console(width=130)
    with console.capture() as captured:
        console.print(*serve.report({"runs": {"answers": measured}}))
    assert "8 clients for 3 seconds" in captured.get()
    assert f"{measured['requests']}, " in captured.get()


def test_what_is_lost_or_mixed_up_is_counted() -> None:
    measured = serve.Measured(8, [1.0, 2.0, 3.0, 4.0], ["gone", "gone", "full"], 2, [100.0, 101.0, 102.0, 103.0, 120.0])
    figures = serve.figures(measured)
    assert (figures["requests"], figures["lost"], figures["mixed_up"]) == (7, 3, 2)
    assert figures["reasons"] == ["full", "gone"]
    assert figures["requests_per_second"] == 0.5
    assert figures["latency_seconds"] == {"median": 2.5, "p95": 3.85, "p99": 3.97, "max": 4.0}
    assert figures["memory_mb"] == {"start": 100, "quarters": [100, 102, 103, 120], "max": 120}


def test_a_workload_with_lost_or_mixed_up_answers_fails(measured: dict[str, Any]) -> None:
    assert serve.failure({"runs": {"answers": measured}}) is None
    lost = measured | {"lost": 2, "reasons": ["gone"]}
    assert serve.failure({"runs": {"answers": measured, "labels": lost}}) == "labels: 2 lost, 0 mixed up ['gone']"


def test_a_server_that_does_not_start_is_reported_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the server did not start: serve: .*no genai_config\.json"):
        serve.run_clients(tmp_path, WORKLOAD, tmp_path, Console(quiet=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clients", "0"], "--clients and --seconds: must be more than 0"),
        (["--model", "nowhere"], "nowhere: not found; run `make repro` first"),
    ],
)
def test_options_that_cannot_be_run_are_refused_in_one_line(options: list[str], message: str, root: Path) -> None:
    ended = subprocess.run([sys.executable, "-m", "benchmarks.serve", *options], cwd=root, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"benchmarks.serve: {message}")
