"""The process that holds the model: it answers one request at a time, and can be cancelled between two tokens.

`ModelProcess` is its handle in the process that speaks HTTP.
"""

import asyncio
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from tools.serve.workers.messages import (
    Cancelled,
    Command,
    Failed,
    Finished,
    GenerationRequest,
    ModelEvent,
    ModelRequest,
    Ready,
    Scored,
    ScoringRequest,
    Tuning,
)
from tools.serve.workers.served_model import GenerationError, ServedModel
from tunepress.core.cpu import available_cores
from tunepress.core.errors import InputError, one_line

EXIT_TIMEOUT = 5.0  # seconds that the process has to exit by itself


class ModelProcess:
    """Starts a process that loads a model.

    Args:
        folder: of the ONNX model.
        max_length: maximum number of tokens of a prompt and its answer together.
        tunings: that it loads at its start.
        processes: number of such processes, which share the cores.
    """

    def __init__(self, folder: Path, max_length: int, tunings: Sequence[Tuning], processes: int) -> None:
        threads = max(1, available_cores() // processes)
        context = get_context("spawn")  # a forked copy of a process with threads may hang
        self._connection: Connection[Command, ModelEvent]
        self._connection, remote_end = context.Pipe()
        self._process = context.Process(target=main, args=(folder, max_length, tunings, threads, remote_end), name="model")
        self._process.start()
        remote_end.close()  # our copy; with it open, the end of the process would not be noticed
        self._join_lock = threading.Lock()

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    @property
    def exit_status(self) -> str:
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def receive(self) -> ModelEvent:
        """Waits for the next event.

        Raises:
            EOFError: the process has ended.
        """
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            self._join()
            raise EOFError from None

    def send(self, command: Command) -> None:
        with suppress(OSError):  # it has ended, which the listener notices too
            self._connection.send(command)

    def listen(self, on_event: Callable[[ModelEvent], None], on_exit: Callable[[], None]) -> None:
        """Calls `on_event` in the running event loop for each event, and `on_exit` when the process has ended."""
        loop = asyncio.get_running_loop()

        def forward() -> None:
            with suppress(RuntimeError):  # the loop is closed: the server has ended first
                with suppress(EOFError):
                    while True:
                        loop.call_soon_threadsafe(on_event, self.receive())
                loop.call_soon_threadsafe(on_exit)

        threading.Thread(target=forward, name="listener", daemon=True).start()

    def kill(self) -> None:
        """Kills the process without waiting for it; the listener is told of its end."""
        self._process.kill()

    def stop(self) -> None:
        """Asks the process to exit, and kills it if it does not in time."""
        self.send(None)
        self._join()

    def _join(self) -> None:
        with self._join_lock:  # the listener and the main thread may both wait, and only one of them gets the exit code
            self._process.join(EXIT_TIMEOUT)
            if self._process.is_alive():  # in the middle of a long prompt
                self._process.kill()
                self._process.join()


def main(
    folder: Path, max_length: int, tunings: Sequence[Tuning], threads: int, connection: "Connection[ModelEvent, Command]"
) -> None:
    """Loads the model, then answers requests until it receives None or the other process has ended."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole process group; the other process says when to exit
        signal.signal(number, signal.SIG_IGN)
    try:
        model = ServedModel(folder, max_length, tunings, threads)
    except (InputError, RuntimeError) as error:  # the latter is onnxruntime's for a broken file
        reason = str(error) if isinstance(error, InputError) else f"{folder}: {one_line(error)}"
        connection.send(Failed(reason, None, None))
        return
    connection.send(Ready())
    try:
        while command := connection.recv():
            if isinstance(command, GenerationRequest | ScoringRequest):  # otherwise a Cancel that came too late
                answer(model, command, connection)
    except (EOFError, OSError):
        sys.exit()


def answer(model: ServedModel, request: ModelRequest, connection: "Connection[ModelEvent, Command]") -> None:
    """Sends the events of an answer until it is complete or cancelled."""
    events = model.score(request) if isinstance(request, ScoringRequest) else model.answer(request)
    while True:
        try:
            event = next(events)
        except StopIteration:
            return
        except GenerationError as error:
            connection.send(Failed(error.reason, error.param or request.param, error.code))
            return
        except Exception as error:  # whatever onnxruntime raises: this answer fails, the next one may not
            traceback.print_exc()
            connection.send(Failed(f"the model failed ({one_line(error)})", None, None))
            return
        connection.send(event)
        if not isinstance(event, Finished | Scored) and connection.poll():
            if connection.recv() is None:
                sys.exit()
            connection.send(Cancelled())
            return
