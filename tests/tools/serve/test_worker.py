"""The worker, in this process: when it restarts the model process, and how waiting requests fail."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tools.serve import worker as module
from tools.serve.__main__ import parse
from tools.serve.messages import GenerationRequest
from tools.serve.responses import RequestError
from tools.serve.service import Service
from tools.serve.worker import Worker


@asynccontextmanager
async def working(folder: Path, *options: str) -> AsyncIterator[Worker]:
    """A worker whose model is loaded."""
    worker = Service(parse(["--model", str(folder), *options])).worker
    try:
        worker.load()
        worker.listen()
        yield worker
    finally:
        worker.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition while the worker handles events."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        await asyncio.sleep(0.01)


async def retry_after(worker: Worker) -> tuple[str, str]:
    """The header of two errors after the process was killed: of the request it had, and of the next one."""
    process = worker.pid
    os.kill(process, signal.SIGSTOP)  # so that it answers nothing
    with worker.submit([GenerationRequest("a", "prompt", 3)], asyncio.get_running_loop().time() + 60) as batch:
        os.kill(process, signal.SIGKILL)
        with pytest.raises(RequestError) as running:
            await batch.jobs[0].started()
    with pytest.raises(RequestError) as refused:
        worker.submit([GenerationRequest("a", "prompt", 3)], 0)
    assert running.value.headers and refused.value.headers
    return running.value.headers["Retry-After"], refused.value.headers["Retry-After"]


@pytest.mark.slow
def test_those_who_wait_are_told_the_pause_that_follows(folder: Path) -> None:
    async def run() -> None:
        async with working(folder) as worker:
            for pause in ("1", "2", "4"):
                assert await retry_after(worker) == (pause, pause)
                await until(lambda: worker.alive)

    asyncio.run(run())


def test_a_process_that_does_not_load_the_model_again_is_ended_and_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOAD_TIMEOUT", 0.5)

    async def run() -> None:
        async with working(folder, "--restarts", "1") as worker:
            first = worker.pid
            os.kill(first, signal.SIGKILL)
            await until(lambda: worker.pid != first)
            os.kill(worker.pid, signal.SIGSTOP)  # long before it has imported what it needs
            await until(lambda: worker.failure is not None)
            assert worker.failure == (
                "the model's process has not loaded the model in 0.5 s; "
                "2 times in a row without an answer in between (--restarts)"
            )
            assert not Path(f"/proc/{worker.pid}").exists()

    asyncio.run(run())


def test_a_process_that_has_loaded_the_model_is_left_alone_when_the_time_is_over(folder: Path) -> None:
    async def run() -> None:
        async with working(folder) as worker:
            first = worker.pid
            os.kill(first, signal.SIGKILL)
            await until(lambda: worker.pid != first and worker.alive)
            worker._on_load_timeout()
            with worker.submit([GenerationRequest("a", "prompt", 3)], asyncio.get_running_loop().time() + 60) as batch:
                await batch.jobs[0].started()

    asyncio.run(run())
