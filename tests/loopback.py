"""Servers of files on this machine: over http with versions, as object stores of Amazon's kind answer, and one that is silent."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

Served = TypeVar("Served", bound=BaseServer)


class Files(ThreadingHTTPServer):
    """Files by path, which a test puts there, and the requests for them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.versions = True  # whether answers have an ETag
        self.statuses: dict[str, int] = {}  # in place of an answer
        self.redirects: dict[str, str] = {}
        self.asked: list[str] = []
        self.credentials: list[str | None] = []  # of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers HEAD and GET, a range too, and the listing by which s3fs looks whether a file is a folder."""

    server: Files

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.server.asked.append(f"{self.command} {path}")
        self.server.credentials.append(self.headers.get("Authorization"))
        if path in self.server.redirects:
            self.send_response(302)
            self.send_header("Location", self.server.redirects[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path in self.server.statuses:
            self.send_error(self.server.statuses[path])
        elif "list-type=2" in parts.query:
            self.answer(
                b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><KeyCount>0</KeyCount></ListBucketResult>'
            )
        elif path in self.server.files:
            self.answer(self.server.files[path])
        elif path.count("/") == 1 and any(name.startswith(f"{path}/") for name in self.server.files):
            self.answer(b"")  # a bucket
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, content: bytes) -> None:
        etag = hashlib.sha256(content).hexdigest()[:16]
        start, end = 0, len(content)
        if byte_range := self.headers.get("Range"):
            first, _, last = byte_range.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1, end)
        self.send_response(206 if byte_range else 200)
        self.send_header("Content-Length", str(end - start))
        if self.server.versions:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[start:end])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def running(server: Served) -> Iterator[Served]:
    """Has a server answer in a thread of its own while the block runs, and closes it."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving() -> Iterator[Files]:
    """A server of files while the block runs."""
    with running(Files()) as server:
        yield server


@contextmanager
def silence() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
