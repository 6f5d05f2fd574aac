"""The model's process as the one that speaks HTTP holds it: started once, listened to, ended."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from tools.serve import model_process
from tools.serve.question import Heard, Question, Stop

LAST_WORDS = 5.0  # seconds that the process has to end by itself


class Child:
    """One process with one model, which it begins to load."""

    def __init__(self, folder: Path, max_length: int) -> None:
        """Starts the process.

        Args:
            folder: of the ONNX model.
            max_length: tokens that a prompt and its answer may have together.
        """
        context = get_context("spawn")  # a forked copy of a process with threads may hang
        self._connection: Connection[Question | Stop | None, Heard]
        self._connection, others = context.Pipe()
        self._process = context.Process(target=model_process.main, args=(folder, max_length, others), name="model")
        self._process.start()
        others.close()  # ours; with it open, the end of the process would not be heard
        self._ending = threading.Lock()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid
        return self._process.pid

    @property
    def exit(self) -> str:
        """How the process ended."""
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def receive(self) -> Heard:
        """What the process says next.

        Raises:
            EOFError: nothing any more, it has ended.
        """
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            self._reap()
            raise EOFError from None

    def send(self, message: Question | Stop | None) -> None:
        """Says something to the process, if it is there to hear it."""
        with suppress(OSError):  # it has ended, which whoever listens hears too
            self._connection.send(message)

    def listen(self, hear: Callable[[Heard], None], ended: Callable[[], None]) -> None:
        """From now on calls `hear` in the running event loop with all that the process says, and in the end `ended`."""
        loop = asyncio.get_running_loop()

        def until_the_end() -> None:
            with suppress(RuntimeError):  # the loop is closed: the server has ended before
                with suppress(EOFError):
                    while True:
                        loop.call_soon_threadsafe(hear, self.receive())
                loop.call_soon_threadsafe(ended)

        threading.Thread(target=until_the_end, name="listener", daemon=True).start()

    def kill(self) -> None:
        """Ends the process at once and does not wait for it; whoever listens hears of the end."""
        self._process.kill()

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self.send(None)
        self._reap()

    def _reap(self) -> None:
        with self._ending:  # the listener and the main thread may both wait for it, and one alone is told its exit code
            self._process.join(LAST_WORDS)
            if self._process.is_alive():  # in the midst of a long prompt
                self._process.kill()
                self._process.join()
