"""What clients cannot take by being slow: connections with half a request, and with answers that they do not read."""

import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from select import select
from typing import Any

import pytest

from tests.tools.serve.served import ENDLESS, Server, connected, send, serving, until, written

HALF = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = HALF + b"Content-Length: 100\r\n\r\n{"


@contextmanager
def open_files(count: int) -> Iterator[None]:
    """Lets this process, and those that it starts, have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def half_sent(server: Server, count: int, content: bytes = HALF) -> Iterator[list[socket.socket]]:
    """Connections on which a part of a request has been sent."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connected(server)) for _ in range(count)]
        for connection in connections:
            with suppress(ConnectionError):  # it may have had to make room
                connection.sendall(content)
        yield connections


def open_connections(server: Server) -> int:
    """Of the server's process, by its file descriptors."""
    links = (Path(link) for link in Path(f"/proc/{server.process.pid}/fd").iterdir())
    return sum(1 for link in links if str(target(link)).startswith("socket:"))


def target(link: Path) -> str:
    """Where a link of /proc goes, empty where it has gone meanwhile."""
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return ""


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", HALF, BODY], ids=["nothing", "half a head", "half a body"])
def test_half_sent_requests_leave_room_for_others(content: bytes, folder: Path) -> None:
    with serving(folder, "--max-connections", "100", "--client-timeout", "50") as server:
        with half_sent(server, 300, content):
            before = time.monotonic()
            assert server.get("/health").status_code == 200
            assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 3}).status_code == 200
            assert time.monotonic() - before < 20
            assert server.metric("tunepress_dropped_connections_total", reason="full") >= 200
            assert open_connections(server) < 130
        assert "Traceback" not in server.log()


@pytest.mark.slow
def test_as_many_half_sent_heads_as_made_the_server_unreachable_do_so_no_more(folder: Path) -> None:
    with open_files(1024), serving(folder) as server, open_files(2000), half_sent(server, 1100):
        assert server.get("/health").status_code == 200
        assert open_connections(server) < 300
        assert "Traceback" not in server.log()


@pytest.mark.slow
def test_a_low_limit_of_open_files_is_raised_to_what_the_connections_need(folder: Path) -> None:
    with serving(folder, limit=256) as server:
        assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0] == 256 + 320
        assert server.get("/health").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", HALF], ids=["nothing", "half a head"])
def test_a_head_that_does_not_come_is_not_waited_for(content: bytes, folder: Path) -> None:
    with serving(folder, "--client-timeout", "2") as server, half_sent(server, 20, content):
        until(lambda: server.metric("tunepress_dropped_connections_total", reason="timeout") == 20, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "variables"),
    [
        (b"GET /health HTTP/1.1\r\nX: ", {}),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nX: ", {}),
        (BODY, {"TUNEPRESS_API_KEY": "a key that this client does not have"}),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", {}),
    ],
    ids=["head", "head after an answer", "body without the key", "body that nobody reads"],
)
def test_who_sends_byte_by_byte_does_not_keep_a_connection(content: bytes, variables: dict[str, Any], folder: Path) -> None:
    with serving(folder, "--client-timeout", "2", **variables) as server, connected(server) as connection:
        connection.sendall(content)
        before = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() < before + 15:
                connection.sendall(b"x")
                time.sleep(0.2)
        assert server.metric("tunepress_dropped_connections_total", reason="timeout") == 1


@pytest.mark.slow
def test_a_body_that_comes_byte_by_byte_is_refused_when_its_time_is_over(folder: Path) -> None:
    with serving(folder, "--client-timeout", "2") as server, connected(server) as connection:
        connection.sendall(BODY)
        before = time.monotonic()
        while not select([connection], [], [], 0.3)[0]:
            assert time.monotonic() < before + 15
            connection.sendall(b" ")
        answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer.lower()


def ask_without_reading(connection: socket.socket, count: int) -> None:
    """Sends many requests at once, whose answers are more than all buffers on the way hold."""
    with suppress(OSError):  # the server takes no more, or has hung up
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * count)


@pytest.mark.slow
def test_who_does_not_read_the_answers_is_not_waited_for(folder: Path) -> None:
    with serving(folder, "--client-timeout", "2") as server, connected(server) as connection:
        connection.settimeout(3)
        ask_without_reading(connection, 3000)
        until(lambda: server.metric("tunepress_dropped_connections_total", reason="timeout") == 1, 20)


@pytest.mark.slow
def test_who_reads_slowly_gets_all_the_answers(folder: Path) -> None:
    count, received, begun = 1000, 0, time.monotonic()
    with serving(folder, "--client-timeout", "5") as server, connected(server) as connection:
        ask_without_reading(connection, 1)
        time.sleep(1)
        length = len(connection.recv(1 << 20))
        sender = threading.Thread(target=ask_without_reading, args=(connection, count))
        sender.start()
        while chunk := connection.recv(200_000) if received < count * length else b"":
            received += len(chunk)
            time.sleep(12 * len(chunk) / (count * length))  # 12 s for all the answers, however many chunks they come in
        sender.join()
        assert time.monotonic() - begun > 11  # more than twice what a client may take without reading
        assert received == count * length


def test_an_answer_under_way_makes_no_room(slow_folder: Path) -> None:
    with serving(slow_folder, "--max-connections", "4", "--client-timeout", "50") as server, connected(server) as asking:
        send(asking, {**ENDLESS, "max_tokens": 300})
        until(lambda: written(server) > 5)
        with half_sent(server, 20):
            asking.settimeout(60)
            assert asking.recv(1000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow
def test_where_all_connections_are_answered_another_is_refused(slow_folder: Path) -> None:
    with serving(slow_folder, "--max-connections", "1") as server, connected(server) as first:
        send(first, {**ENDLESS, "stream": True})
        assert first.recv(1000).startswith(b"HTTP/1.1 200 ")  # so it is being answered
        with connected(server) as second:
            assert second.recv(1000).startswith(b"HTTP/1.1 503 ")
        assert first.recv(1000)
        assert "Traceback" not in server.log()
