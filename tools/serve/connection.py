"""What one connection may cost. uvicorn 0.54 limits neither how many there are nor how long a client may take."""

import asyncio
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from tools.serve.metrics import Metrics
from tools.serve.settings import BACKLOG, Settings

LAST_BYTES = 5  # seconds that answers have to reach their clients once all are written
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Config(uvicorn.Config):
    """uvicorn's configuration of this service, with what its connections need."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        super().__init__(
            app,
            http=Connection,
            ws="none",
            lifespan="on",
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=LAST_BYTES,
        )


class Connection(H11Protocol):
    """uvicorn's connection, which also makes room for another and is closed when its client takes too long.

    The client is waited for until a request's head is complete, and whenever it does not read its answer.
    How long a body may take is checked where it is read (door.py), which can say so with a status.
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
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def waits_for_client(self) -> bool:
        """Whether nothing happens here until the client sends or reads."""
        return self.between_requests or self.cycle.more_body or self.flow.write_paused

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a connection. Where there are too many, the one that has waited longest for its client makes room."""
        super().connection_made(transport)
        if len(self.connections) <= self._settings.max_connections:
            return
        others = (other for other in self.connections if isinstance(other, Connection) and other is not self)
        oldest = min((other for other in others if other.waits_for_client), key=lambda other: other._waiting_since, default=None)
        if oldest:
            oldest.drop("full")
        else:
            self.connections.discard(self)
            self._dropped.labels("refused").inc()
            transport.write(FULL)
            transport.close()

    def on_response_complete(self) -> None:
        """Begins to wait for the next request."""
        self._waiting_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Begins to wait for the client to read."""
        self._waiting_since = self.loop.time()
        super().pause_writing()

    def check(self) -> None:
        """Closes the connection if its client has taken too long. Called every second."""
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._waiting_since = now  # it reads
        self._unsent = unsent
        waits = self.between_requests or self.flow.write_paused
        if waits and now - self._waiting_since > self._settings.client_timeout:
            self.drop("timeout")

    def drop(self, reason: str) -> None:
        """Closes the connection at once, with what it has not sent."""
        self.connections.discard(self)  # connection_lost, which does it too, is called after those that wait to be made
        self._dropped.labels(reason).inc()
        self.transport.abort()
