"""The server: uvicorn, which at a signal lets the service finish what it has taken."""

import os
import signal
import socket
from types import FrameType

import uvicorn

from tools.serve.application import application
from tools.serve.connection import Config, Connection
from tools.serve.service import Service
from tools.serve.settings import BACKLOG
from tunepress.core.errors import InputError


class Server(uvicorn.Server):
    """Ends on SIGTERM or Ctrl-C when every request that was taken is answered; on a second signal, at once."""

    def __init__(self, service: Service) -> None:
        self._service = service
        super().__init__(Config(application(service), service.settings, service.metrics))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Takes a signal. uvicorn's own would raise it again in the end, and exit with its number."""
        self._service.close(at_once=self._service.closing)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end, asked ten times a second."""
        if counter % 10 == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check()
        return await super().on_tick(counter) or self._service.drained() or self._service.worker.failure is not None


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket at an address.

    Raises:
        InputError: it cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        # below 0 are the numbers of names that cannot be looked up
        said = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)
        raise InputError(f"--host {host} --port {port}: {said.lower()}") from error


def serve(service: Service) -> None:
    """Loads the model, listens, and returns when all is over.

    Raises:
        InputError: there is no model, or no such address, or the model's process ended again and again.
    """
    settings = service.settings
    worker = service.worker
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until uvicorn takes it
    try:
        worker.load()
        with listening_socket(settings.host, settings.port) as listener:
            service.metrics.watch(lambda: worker.waiting, lambda: worker.alive, lambda: worker.pid)
            address, port, *_ = listener.getsockname()
            shown = f"[{address}]" if ":" in address else address
            print(f"serving {settings.model} as {settings.name!r} at http://{shown}:{port}", flush=True)
            Server(service).run(sockets=[listener])
        if worker.failure:
            raise InputError(worker.failure)
    finally:
        worker.end()
