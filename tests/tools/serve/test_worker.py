"""The worker, in this process: when it restarts the model process, and how waiting requests fail."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tools.serve.__main__ import parse
from tools.serve.responses import RequestError
from tools.serve.service import Service
from tools.serve.workers import worker as module
from tools.serve.workers.messages import GenerationRequest
from tools.serve.workers.queue import Queue


@asynccontextmanager
async def working(folder: Path, *options: str) -> AsyncIterator[Queue]:
    """A queue whose processes have loaded the model."""
    queue = Service(parse(["--model", str(folder), *options])).queue
    try:
        queue.load()
        queue.listen()
        yield queue
    finally:
        queue.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition while the worker handles events."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        await asyncio.sleep(0.01)


async def retry_after(queue: Queue) -> tuple[str, str]:
    """The header of two errors after the process was killed: of the request it had, and of the next one."""
    process = queue.workers[0].pid
    os.kill(process, signal.SIGSTOP)  # so that it answers nothing
    with queue.submit([GenerationRequest("a", "prompt", 3)], asyncio.get_running_loop().time() + 60) as batch:
        os.kill(process, signal.SIGKILL)
        with pytest.raises(RequestError) as running:
            await batch.jobs[0].started()
    with pytest.raises(RequestError) as refused:
        queue.submit([GenerationRequest("a", "prompt", 3)], 0)
    assert running.value.headers and refused.value.headers
    return running.value.headers["Retry-After"], refused.value.headers["Retry-After"]


@pytest.mark.slow
def test_those_who_wait_are_told_the_pause_that_follows(folder: Path) -> None:
    async def run() -> None:
        async with working(folder) as queue:
            for pause in ("1", "2", "4"):
                assert await retry_after(queue) == (pause, pause)
                await until(lambda: queue.alive)

    asyncio.run(run())


def test_a_process_that_does_not_load_the_model_again_is_ended_and_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOAD_TIMEOUT", 0.5)

    async def run() -> None:
        async with working(folder, "--restarts", "1") as queue:
            (worker,) = queue.workers
            first = worker.pid
            os.kill(first, signal.SIGKILL)
            await until(lambda: worker.pid != first)
            os.kill(worker.pid, signal.SIGSTOP)  # long before it has imported what it needs
            await until(lambda: queue.failure is not None)
            assert queue.failure == (
                "the model's process has not loaded the model in 0.5 s; "
                "2 times in a row without an answer in between (--restarts)"
            )
            assert not Path(f"/proc/{worker.pid}").exists()

    asyncio.run(run())


def test_a_process_that_has_loaded_the_model_is_left_alone_when_the_time_is_over(folder: Path) -> None:
    async def run() -> None:
        async with working(folder) as queue:
            (worker,) = queue.workers
            first = worker.pid
            os.kill(first, signal.SIGKILL)
            await until(lambda: worker.pid != first and worker.alive)
            worker._on_load_timeout()
            with queue.submit([GenerationRequest("a", "prompt", 3)], asyncio.get_running_loop().time() + 60) as batch:
                await batch.jobs[0].started()

    asyncio.run(run())


def test_another_process_goes_on_with_what_waits(folder: Path) -> None:
    async def run() -> None:
        async with working(folder, "--processes", "2") as queue:
            killed, other = queue.workers
            for worker in queue.workers:
                os.kill(worker.pid, signal.SIGSTOP)
            requests = [GenerationRequest(text, "prompt", 3) for text in "abcd"]
            with queue.submit(requests, asyncio.get_running_loop().time() + 60) as batch:
                assert [worker.running for worker in queue.workers] == batch.jobs[:2]
                os.kill(killed.pid, signal.SIGKILL)
                os.kill(other.pid, signal.SIGCONT)
                with pytest.raises(RequestError, match="has ended"):
                    await batch.jobs[0].answer()
                answers = [await job.answer() for job in batch.jobs[1:]]
                assert all(answer.text for answer in answers)
            assert queue.alive and queue.failure is None
            await until(lambda: killed.alive)

    asyncio.run(run())


def test_processes_answer_at_the_same_time_and_alike(folder: Path) -> None:
    async def run() -> None:
        texts = [f"text {number}" for number in range(12)]
        answers = []
        for number in ("1", "3"):
            async with working(folder, "--processes", number) as queue:
                requests = [GenerationRequest(text, "prompt", 8) for text in texts]
                with queue.submit(requests, asyncio.get_running_loop().time() + 60) as batch:
                    assert sum(worker.running is not None for worker in queue.workers) == int(number)
                    answers.append([(await job.answer()).text for job in batch.jobs])
        assert answers[0] == answers[1]

    asyncio.run(run())


def test_a_server_whose_processes_all_stay_down_says_so(folder: Path) -> None:
    async def run() -> None:
        async with working(folder, "--processes", "2", "--restarts", "0") as queue:
            os.kill(queue.workers[0].pid, signal.SIGKILL)
            await until(lambda: queue.workers[0].failure is not None)
            assert queue.failure is None
            with queue.submit([GenerationRequest("a", "prompt", 3)], asyncio.get_running_loop().time() + 60) as batch:
                assert (await batch.jobs[0].answer()).text
            os.kill(queue.workers[1].pid, signal.SIGKILL)
            await until(lambda: queue.failure is not None)

    asyncio.run(run())
