"""How a server ends: after its answers, within its time, with the right exit code; and what it says where it cannot start."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import APIError

from tests.tools.serve.served import ENDLESS, ROOT, Server, connected, send, serving, start, until, written


def read(connection: socket.socket) -> bytes:
    """All that comes until the other end is done."""
    received = b""
    while chunk := connection.recv(1 << 16):
        received += chunk
    return received


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_streaming_answer_end_and_takes_no_other(number: int, slow_folder: Path) -> None:
    with serving(slow_folder, "--max-tokens", "8192") as server:
        with (
            connected(server) as connection,
            connected(server) as late,
            httpx2.Client(base_url=server.url, timeout=60) as other,
        ):
            other.get("/health")
            send(connection, {"prompt": "a", "max_tokens": 1000, "stream": True})
            until(lambda: written(server) > 5)
            server.process.send_signal(number)
            until(lambda: other.get("/health").status_code == 503)
            assert other.get("/health").json() == {"status": "shutting down"}
            refused = other.post("/v1/completions", json={"prompt": "a"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            late.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
            )
            time.sleep(0.2)  # a body that comes after its head; refused before, the connection would be reset
            late.sendall(b"{}")
            assert read(late).startswith(b"HTTP/1.1 503")
            answer = read(connection)
        assert server.process.wait(60) == 0
        assert answer.count(b'"text"') > 100
        assert b'"finish_reason":"length"' in answer
        assert b"data: [DONE]" in answer
        assert "Traceback" not in server.log()


def test_a_server_that_does_nothing_ends_at_once(folder: Path) -> None:
    with serving(folder) as server:
        before = time.monotonic()
        assert server.end(signal.SIGTERM) == 0
        assert time.monotonic() - before < 5
        assert "Traceback" not in server.log()


@pytest.mark.slow
def test_an_answer_that_takes_longer_than_is_left_is_given_up(slow_folder: Path) -> None:
    with serving(slow_folder, "--grace", "1") as server:
        with connected(server) as streaming, connected(server) as waiting:
            send(streaming, {**ENDLESS, "stream": True})
            until(lambda: written(server) > 5)
            send(waiting, ENDLESS)
            until(lambda: server.metric("tunepress_queue_length") == 1)
            assert server.end(signal.SIGTERM) == 0
            assert b"the server shut down before the answer was complete" in read(streaming)
            refused = read(waiting)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"the server shut down before the answer was complete" in refused
        assert "Traceback" not in server.log()


def test_a_second_signal_waits_for_no_answer(slow_folder: Path) -> None:
    with serving(slow_folder) as server, connected(server) as connection:
        send(connection, ENDLESS)
        until(lambda: written(server) > 5)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        before = time.monotonic()
        assert server.end(signal.SIGTERM) == 0
        assert time.monotonic() - before < 15
        assert read(connection).startswith(b"HTTP/1.1 503 ")


@pytest.mark.slow
def test_a_model_that_is_killed_is_told_to_all_and_comes_back(slow_folder: Path) -> None:
    with serving(slow_folder) as server:
        with connected(server) as waiting:
            stream = server.openai().completions.create(model="tunepress", prompt="a", max_tokens=8000, stream=True)
            next(iter(stream))
            send(waiting, ENDLESS)
            until(lambda: server.metric("tunepress_queue_length") == 1)
            model = server.model_pid()
            os.kill(model, signal.SIGKILL)
            with pytest.raises(APIError, match=r"the model's process has ended \(signal 9\)"):
                list(stream)
            waiting.settimeout(60)
            assert waiting.recv(100).startswith(b"HTTP/1.1 503 ")
        health = server.get("/health")
        assert (health.status_code, health.json()) == (503, {"status": "restarting the model"})
        assert server.get("/health/live").status_code == 200
        refused = server.post("/v1/completions", {"prompt": "a"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_ended")
        assert refused.headers["Retry-After"] == "1"
        assert server.metric("tunepress_model_alive") == 0
        until(lambda: server.get("/health").status_code == 200)
        assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 3}).status_code == 200
        assert server.model_pid() != model
        assert server.metric("tunepress_model_restarts_total") == 1
        assert server.metric("tunepress_model_process_resident_memory_bytes") > 0
        assert server.end(signal.SIGTERM) == 0
        assert "Traceback" not in server.log()


def kill_the_model(server: Server) -> None:
    """Kills the model's process and waits until it is loaded again."""
    starts = server.metric("tunepress_model_restarts_total")
    os.kill(server.model_pid(), signal.SIGKILL)
    until(lambda: server.metric("tunepress_model_restarts_total") == starts + 1)
    until(lambda: server.get("/health").status_code == 200)


@pytest.mark.slow
def test_a_server_whose_model_ends_again_and_again_ends_with_an_error(folder: Path) -> None:
    with serving(folder, "--restarts", "1") as server:
        kill_the_model(server)
        assert server.post("/v1/completions", {"prompt": "a"}).status_code == 200  # so that the next is the first in a row
        kill_the_model(server)
        os.kill(server.model_pid(), signal.SIGKILL)
        assert server.process.wait(60) == 1
        *_, last = server.log().splitlines()
        assert last == (
            "serve: the model's process has ended (signal 9); 2 times in a row without an answer in between (--restarts)"
        )
        assert "Traceback" not in server.log()


@pytest.mark.slow
def test_a_model_that_does_not_load_any_more_ends_the_server_with_the_reason(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "onnx")
    with serving(tmp_path / "onnx", "--restarts", "1") as server:
        (tmp_path / "onnx/model.onnx").write_bytes(b"no graph")
        os.kill(server.model_pid(), signal.SIGKILL)
        assert server.process.wait(60) == 1
        *_, last = server.log().splitlines()
        assert last.startswith(f"serve: {tmp_path / 'onnx'}: onnxruntime-genai cannot load this model (")
        assert last.endswith("; 2 times in a row without an answer in between (--restarts)")


@pytest.mark.slow
def test_a_server_that_waits_to_start_its_model_again_ends_at_once(folder: Path) -> None:
    with serving(folder) as server:
        os.kill(server.model_pid(), signal.SIGKILL)
        until(lambda: server.get("/health").status_code == 503)
        before = time.monotonic()
        assert server.end(signal.SIGTERM) == 0
        assert time.monotonic() - before < 20  # the grace is 30; a new process that is still importing has 5 to end by itself
        assert "Traceback" not in server.log()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_models_process_does_not_outlive_the_server(number: int, slow_folder: Path) -> None:
    with serving(slow_folder, "--grace", "0") as server:
        model = server.model_pid()
        with connected(server) as connection:
            send(connection, ENDLESS)
            until(lambda: written(server) > 5)
            server.process.send_signal(number)
            server.process.wait(60)
        until(lambda: not Path(f"/proc/{model}").exists())


def error_of_start(folder: Path, *options: str, **variables: Any) -> str:
    """The last line of a server that cannot start."""
    process = start(folder, *options, **variables)
    _, log = process.communicate(timeout=100)
    assert process.returncode == 1
    *_, last = log.splitlines()
    return str(last)


@pytest.mark.slow
def test_what_keeps_a_server_from_starting_is_told_in_one_line(folder: Path, server: Server, tmp_path: Path) -> None:
    _, _, port = server.url.rpartition(":")
    assert error_of_start(folder, "--port", port) == f"serve: --host 127.0.0.1 --port {port}: address already in use"
    assert error_of_start(tmp_path).startswith(f"serve: {tmp_path}: no genai_config.json")
    assert error_of_start(folder, "--queue", "0") == "serve: --queue: must be greater than 0"
    assert error_of_start(folder, "--client-timeout", "0") == "serve: --client-timeout: must be greater than 0"
    assert error_of_start(folder, "--restarts", "-1") == "serve: --restarts: must be at least 0"
    assert error_of_start(folder, "--max-tokens", "1").startswith("serve: --max-tokens: must be at least 2, ")
    assert (
        error_of_start(folder, "--max-tokens", "513")
        == "serve: --max-tokens: must be at most 512, the length of the model's context, got 513"
    )
    assert error_of_start(folder, "--max-connections", str(10**9)).startswith(
        "serve: --max-connections: 1000000000 need 1000000320 "
    )
    assert "16 prompts never fit a queue of 5" in error_of_start(folder, "--queue", "5")
    assert error_of_start(folder, "--timeout", "0") == "serve: --timeout: must be greater than 0"
    assert error_of_start(folder, "--port", "70000") == "serve: --port: must be between 0 and 65535"
    for key in ("schlüssel", "a\nb", " a", "a "):
        assert error_of_start(folder, TUNEPRESS_API_KEY=key).startswith("serve: TUNEPRESS_API_KEY: must be printable ASCII")
    assert error_of_start(folder, TUNEPRESS_API_KEY="").startswith("serve: TUNEPRESS_API_KEY: is set and empty; unset it")


def test_a_model_that_does_not_load_is_told_in_one_line(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "onnx")
    (tmp_path / "onnx/model.onnx").write_bytes(b"no graph")
    error = error_of_start(tmp_path / "onnx")
    assert error.startswith(f"serve: {tmp_path / 'onnx'}: onnxruntime-genai cannot load this model (")


def test_an_open_address_without_a_key_is_warned_of(folder: Path) -> None:
    with serving(folder, "--host", "0.0.0.0") as server:
        assert "serve: anyone who can reach 0.0.0.0 can send requests; set TUNEPRESS_API_KEY" in server.log()


def test_neither_process_loads_torch_or_transformers() -> None:
    code = "import sys, tools.serve.__main__, tools.serve.workers.model_process; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {"fastapi", "onnxruntime_genai"} <= set(loaded)
    assert not {"torch", "transformers", "scipy", "sklearn", "hydra", "omegaconf", "datasets"} & set(loaded)
