"""What one client, or many, can take of the server: the queue, the time, and answers that nobody waits for any more."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, APIStatusError, RateLimitError

from tests.tools.serve.served import ENDLESS, Server, connected, send, serving, until, written


def is_idle(server: Server) -> bool:
    """Whether nothing is being written."""
    before = written(server)
    time.sleep(0.3)
    return written(server) == before and server.metric("tunepress_queue_length") == 0


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_whoever_hangs_up_stops_the_answer(stream: bool, slow_server: Server) -> None:
    until(lambda: is_idle(slow_server))
    before, stopped = written(slow_server), slow_server.metric("tunepress_cancelled_answers_total")
    with connected(slow_server) as connection:
        send(connection, {**ENDLESS, "stream": stream})
        until(lambda: written(slow_server) > before + 5)
    until(lambda: slow_server.metric("tunepress_cancelled_answers_total") == stopped + 1)
    assert is_idle(slow_server)
    assert written(slow_server) < before + 4000
    assert slow_server.post("/v1/completions", {"prompt": "a", "max_tokens": 3}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_hangs_up_while_waiting_leaves_the_queue(stream: bool, slow_server: Server) -> None:
    with connected(slow_server) as first:
        send(first, ENDLESS)
        until(lambda: not is_idle(slow_server))
        with connected(slow_server) as second:
            send(second, {**ENDLESS, "stream": stream})
            until(lambda: slow_server.metric("tunepress_queue_length") == 1)
        until(lambda: slow_server.metric("tunepress_queue_length") == 0)
        assert not is_idle(slow_server)


def test_more_prompts_than_may_wait_are_told_to_come_again(slow_server: Server) -> None:
    until(lambda: is_idle(slow_server))
    with connected(slow_server) as first, connected(slow_server) as second:
        send(first, ENDLESS)
        until(lambda: not is_idle(slow_server))
        send(second, {**ENDLESS, "prompt": ["a", "b"]})
        until(lambda: slow_server.metric("tunepress_queue_length") == 2)
        with pytest.raises(RateLimitError, match="the queue is full: 2 of 3 prompts are waiting") as refused:
            slow_server.openai().completions.create(model="tunepress", prompt=["a", "b"])
        assert int(refused.value.response.headers["Retry-After"]) >= 1
        assert slow_server.metric("tunepress_queue_length") == 2  # all of a request's prompts or none
        assert slow_server.get("/health").status_code == 200
    until(lambda: is_idle(slow_server))


def test_a_slow_answer_does_not_keep_the_server_from_answering_others(slow_server: Server) -> None:
    with connected(slow_server) as first:
        send(first, {"prompt": "a" * 4000, "max_tokens": 4000})
        time.sleep(0.5)
        start = time.monotonic()
        assert slow_server.get("/health").status_code == 200
        assert slow_server.get("/v1/models").status_code == 200
        assert time.monotonic() - start < 2
    until(lambda: is_idle(slow_server))


@pytest.mark.slow
def test_the_time_of_a_request_ends_its_answer(slow_folder: Path) -> None:
    with serving(slow_folder, "--timeout", "2") as server:
        refused = server.post("/v1/completions", {**ENDLESS, "prompt": ["a", "b"]})
        assert refused.status_code == 504
        assert "the request timed out after" in refused.json()["error"]["message"]
        assert refused.json()["error"]["code"] == "timeout"
        until(lambda: is_idle(server))
        assert server.metric("tunepress_cancelled_answers_total") == 1  # and the other prompt's was not begun
        assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 3}).status_code == 200


@pytest.mark.slow
def test_a_prompt_whose_turn_does_not_come_in_time_says_so(slow_folder: Path) -> None:
    with serving(slow_folder, "--timeout", "1", "--max-tokens", "8192") as server, connected(server) as first:
        send(first, {"prompt": "a" * 8000, "max_tokens": 1})  # takes seconds to read, and nothing can stop that
        until(lambda: server.metric("tunepress_prompt_tokens_total") == 8000)
        refused = server.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
        assert refused.status_code == 503
        assert "before this prompt was started" in refused.json()["error"]["message"]
        assert refused.headers["Retry-After"] == "1"
        assert first.recv(100).startswith(b"HTTP/1.1 504 ")


@pytest.mark.slow
def test_a_stream_whose_time_is_over_ends_with_the_error(slow_folder: Path) -> None:
    with serving(slow_folder, "--timeout", "2") as server:
        pieces = []
        with pytest.raises(APIError, match="the request timed out after"):
            for chunk in server.openai().completions.create(model="tunepress", prompt="a", max_tokens=8000, stream=True):
                pieces.append(chunk.choices[0].text)
        assert len("".join(pieces)) > 5


@pytest.mark.parametrize(("prompt", "max_tokens"), [("a" * 500, 13), ("a" * 500, 10**30), ("a" * 511, 2), ("a", 512)])
def test_an_answer_with_less_room_than_asked_for_is_shorter(prompt: str, max_tokens: int, endless_server: Server) -> None:
    completion = endless_server.post("/v1/completions", {"prompt": prompt, "max_tokens": max_tokens}).json()
    assert completion["choices"][0]["finish_reason"] == "length"
    assert completion["usage"] == {
        "prompt_tokens": len(prompt), "completion_tokens": 512 - len(prompt), "total_tokens": 512
    }  # fmt: skip


def test_the_answer_to_a_message_ends_where_the_room_does_too(endless_server: Server) -> None:
    messages, options = [{"role": "user", "content": "x"}], {"include_usage": True}
    body = {"messages": messages, "max_tokens": 1000, "stream": True, "stream_options": options}
    chunks = endless_server.post("/v1/chat/completions", body).text.split("\n\n")
    assert '"finish_reason":"length"' in chunks[-4]
    assert '"total_tokens":512' in chunks[-3]


@pytest.mark.slow
def test_the_room_of_a_prompt_and_its_answer_bounds_the_memory(slow_folder: Path) -> None:
    """Keys and values of all tokens there may be are allocated when an answer begins: 12 kB for each here, 98 MB for 8192."""

    def grown(*options: str) -> float:
        with serving(slow_folder, *options) as server:
            server.post("/v1/completions", {"prompt": "a", "max_tokens": 2})
            before = server.metric("tunepress_model_process_resident_memory_bytes")
            with connected(server) as connection:
                send(connection, {"prompt": "a", "max_tokens": 8191})
                until(lambda: written(server) > 20)
                return server.metric("tunepress_model_process_resident_memory_bytes") - before

    small, large = grown("--max-tokens", "64"), grown("--max-tokens", "8192")
    assert small < 30e6
    assert large > small + 30e6


@pytest.mark.slow
def test_by_default_a_long_context_is_not_given_to_one_request(slow_folder: Path) -> None:
    with serving(slow_folder) as server:
        refused = server.post("/v1/completions", {"prompt": "a" * 4096, "max_tokens": 1})
        assert refused.status_code == 400
        assert "leave no room for an answer of 1 in the 4096 that" in refused.json()["error"]["message"]


@pytest.mark.slow
def test_fifty_clients_at_once_find_room_in_the_default_queue(folder: Path) -> None:
    async def ask_all(server: Server) -> list[Any]:
        client = server.async_openai()
        requests = (client.completions.create(model="tunepress", prompt=f"client {number}") for number in range(50))
        return await asyncio.gather(*requests, return_exceptions=True)

    with serving(folder) as server:
        assert not [answer for answer in asyncio.run(ask_all(server)) if isinstance(answer, APIStatusError)]
