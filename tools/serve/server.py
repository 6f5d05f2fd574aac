"""uvicorn for this service: it limits what one connection may cost, and finishes accepted requests before it exits.

uvicorn 0.54 limits neither the number of connections nor how long a client may take.
"""

import asyncio
import os
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from tools.serve.application import application
from tools.serve.metrics import Metrics
from tools.serve.service import Service
from tools.serve.settings import BACKLOG, Settings
from tunepress.core.errors import InputError

FLUSH_TIMEOUT = 5  # seconds for complete responses to reach their clients
SERVICE_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Config(uvicorn.Config):
    """uvicorn's configuration, with what `Connection` needs."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        super().__init__(
            app,
            http=Connection,
            ws="none",
            lifespan="on",
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=FLUSH_TIMEOUT,
        )


class Connection(H11Protocol):
    """uvicorn's connection, which is also closed to make room for another one or when its client is too slow.

    It waits for the client until the head of a request is complete, and while the client does not read its response.
    routing.py limits the time for a body, since it can answer with a status.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._settings, self._dropped = config.settings, config.metrics.dropped
        self._waiting_since = self.loop.time()
        self._unsent = 0  # bytes at the last check

    @property
    def between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    @property
    def waits_for_client(self) -> bool:
        """Whether nothing happens until the client sends or reads."""
        return self.between_requests or self.cycle.more_body or self.flow.write_paused

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accepts a connection. If there are too many, the one that has waited longest for its client is dropped."""
        super().connection_made(transport)
        if len(self.connections) <= self._settings.max_connections:
            return
        others = (other for other in self.connections if isinstance(other, Connection) and other is not self)
        waiting = (other for other in others if other.waits_for_client)
        oldest = min(waiting, key=lambda other: other._waiting_since, default=None)
        if oldest:
            oldest.drop("full")
        else:
            self.connections.discard(self)
            self._dropped.labels("refused").inc()
            transport.write(SERVICE_UNAVAILABLE)
            transport.close()

    def on_response_complete(self) -> None:
        self._waiting_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._waiting_since = self.loop.time()
        super().pause_writing()

    def check(self) -> None:
        """Closes the connection if its client is too slow. Called every second."""
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._waiting_since = now  # the client is reading
        self._unsent = unsent
        waiting = self.between_requests or self.flow.write_paused
        if waiting and now - self._waiting_since > self._settings.client_timeout:
            self.drop("timeout")

    def drop(self, reason: str) -> None:
        """Closes the connection at once and discards unsent data."""
        self.connections.discard(self)  # connection_lost does it too, but only after pending connections are made
        self._dropped.labels(reason).inc()
        self.transport.abort()


class Server(uvicorn.Server):
    """Exits on SIGTERM or Ctrl-C once every accepted request is answered; on a second signal, at once."""

    def __init__(self, service: Service) -> None:
        self._service = service
        super().__init__(Config(application(service), service.settings, service.metrics))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handles a signal. uvicorn's own handler would raise it again and exit with its number."""
        self._service.close(at_once=self._service.closing)

    async def on_tick(self, counter: int) -> bool:
        """Returns whether to exit; called ten times a second."""
        if counter % 10 == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check()
        return await super().on_tick(counter) or self._service.drained() or self._service.queue.failure is not None


def listening_socket(host: str, port: int) -> socket.socket:
    """Opens a socket at an address.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        # errors of name resolution have numbers below 0
        message = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)
        raise InputError(f"--host {host} --port {port}: {message.lower()}") from error


def serve(service: Service) -> None:
    """Loads the model and serves it until a signal.

    Raises:
        InputError: there is no model, the address cannot be used, or the model process failed repeatedly.
    """
    settings = service.settings
    queue = service.queue
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until uvicorn handles it
    try:
        queue.load()
        with listening_socket(settings.host, settings.port) as listener:
            service.metrics.watch(queue)
            address, port, *_ = listener.getsockname()
            host = f"[{address}]" if ":" in address else address
            print(f"serving {settings.model} as {settings.name!r} at http://{host}:{port}", flush=True)
            Server(service).run(sockets=[listener])
        if queue.failure:
            raise InputError(queue.failure)
    finally:
        queue.stop()
