"""Refusals: whatever comes in that cannot be answered is told why with a 4xx, in OpenAI's shape."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from openai import AuthenticationError, NotFoundError

from tests.tools.serve.served import Server, serving

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
KEY = "a key: with spaces"


def error_of(response: Any, status: int = 400) -> dict[str, Any]:
    """The error of a response, whose shape and status are looked at."""
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and error["type"]
    return error


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"best_of": 1}, "best_of", "unknown parameter best_of"),
        ({"frequency_penalty": 0}, "frequency_penalty", "unknown parameter"),
        ({"user": "me"}, "user", "unknown parameter"),
        ({"n": True}, "n", "n: "),
        ({"logprobs": 6}, "logprobs", "logprobs: "),
        ({"logprobs": True}, "logprobs", "logprobs: "),
        ({"echo": True}, "echo", "unknown parameter echo"),
        ({"prompt": None}, "prompt", "prompt: "),
        ({"prompt": ""}, "prompt.0", "prompt.0: "),
        ({"prompt": []}, "prompt", "prompt: "),
        ({"prompt": ["a", ""]}, "prompt.1", "prompt.1: "),
        ({"prompt": [1, 2]}, "prompt", "token ids are not supported"),
        ({"prompt": [[1, 2]]}, "prompt", "token ids are not supported"),
        ({"prompt": 5}, "prompt", "prompt: "),
        ({"prompt": {"a": "b"}}, "prompt.0", "prompt.0: "),
        ({"prompt": "a\0b"}, "prompt.0", "contains a NUL character, at which the tokenizer stops"),
        ({"prompt": ["a"] * 17}, "prompt", "prompt: has 17 items, at most 16 are allowed"),
        ({"prompt": "a" * 512}, "prompt", "prompt has 512 tokens, which leave no room for an answer of 1 in the 512 that"),
        ({"prompt": "a" * 9000}, "prompt", "prompt: has 9000 characters, at most 8192 are allowed"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens: "),
        ({"max_tokens": -1}, "max_tokens", "max_tokens: "),
        ({"max_tokens": 1.5}, "max_tokens", "max_tokens: "),
        ({"max_tokens": "5"}, "max_tokens", "max_tokens: "),
        ({"max_tokens": True}, "max_tokens", "max_tokens: "),
        ({"temperature": -0.1}, "temperature", "temperature: "),
        ({"temperature": 2.1}, "temperature", "temperature: "),
        ({"temperature": "0"}, "temperature", "temperature: "),
        ({"temperature": False}, "temperature", "temperature: "),
        ({"top_p": 1.01}, "top_p", "top_p: "),
        ({"seed": -1}, "seed", "seed: "),
        ({"seed": 2**31}, "seed", "seed: "),
        ({"stop": ""}, "stop.0", "stop.0: "),
        ({"stop": list("abcde")}, "stop", "stop: "),
        ({"stop": "\0"}, "stop.0", "stop.0: "),
        ({"stream": "yes"}, "stream", "stream: "),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream_options: needs stream=true"),
        ({"stream": True, "stream_options": {"include": True}}, "stream_options.include", "unknown parameter"),
        ({"model": ["a"]}, "model", "model: "),
    ],
)
def test_a_parameter_that_cannot_be_taken_is_named(
    change: dict[str, Any], param: str | None, message: str, server: Server
) -> None:
    error = error_of(server.post(COMPLETIONS, {"prompt": "a", "max_tokens": 13} | change))
    assert message in error["message"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "messages: is missing"),
        ({"messages": []}, "messages: "),
        ({"messages": "hello"}, "messages: "),
        ({"messages": [{"role": "user"}]}, "messages: message 1: is empty"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages: message 1: is empty"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0.content: "),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content: only text is supported"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "only text is supported",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "\0"}]}]}, "contains a NUL character"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages.0.role: "),
        ({"messages": [{"role": "user", "content": "x", "nickname": "me"}]}, "unknown parameter messages.0.nickname"),
        ({"messages": [{"role": "assistant", "tool_calls": []}]}, "messages.0.tool_calls: "),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": ""}}]}]},
            "messages.0.tool_calls.0.function.name",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "messages: message 1: the arguments of f are not JSON",
        ),
        *(
            (
                {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}]},
                "messages: message 1: the arguments of f are not JSON",
            )
            for arguments in ("[" * 100_000, r'{"a": "\ud800"}', '{"a": NaN}')
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f\0"}}]}]},
            "messages: message 1: contains a NUL character",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": [{"type": "x", "function": {"name": "f"}}]}]}, "tool_calls.0.type"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "messages: the last must be"),
        ({"messages": [{"role": "user", "content": "x"}], "tools": []}, "tools: "),
        ({"messages": [{"role": "user", "content": "x"}], "tools": ["f"]}, "tools.0: "),
        ({"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]}, "tools: a tool must be "),
        (
            {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function", "function": {"name": "f"}}]},
            "tools: the model's chat template does not show the tool 'f'; send no tools",
        ),
        ({"messages": [{"role": "user", "content": "x"}], "functions": []}, "unknown parameter functions"),
        (
            {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5, "max_completion_tokens": 5},
            "max_tokens: is the older name of max_completion_tokens",
        ),
        ({"messages": [{"role": "user", "content": "x" * 600}]}, "leave no room for an answer of 1 in the 512 that"),
    ],
)
def test_a_conversation_that_cannot_be_answered_is_told_why(body: dict[str, Any], message: str, chat_server: Server) -> None:
    assert message in error_of(chat_server.post(CHAT, body))["message"]


def test_what_says_that_something_is_not_wanted_is_taken(server: Server, chat_server: Server) -> None:
    unwanted = {"n": 1, "logprobs": None, "stop": None, "seed": None, "stream": None, "stream_options": None, "top_p": None}
    assert server.post(COMPLETIONS, {"prompt": "a", "max_tokens": None, "temperature": None, **unwanted}).status_code == 200
    messages = [{"role": "user", "content": "x"}]
    assert chat_server.post(CHAT, {"messages": messages, **unwanted, "logprobs": False}).status_code == 200


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the body is empty"),
        (b"{", "the body is not JSON in UTF-8"),
        (b'{"prompt": "\xff"}', "the body is not JSON in UTF-8"),
        (b'{"prompt": "\\ud800"}', "the body is not JSON in UTF-8"),
        ('{"prompt": "a"}'.encode("utf-16"), "the body is not JSON in UTF-8"),
        (b'{"prompt": "a", "temperature": NaN}', "the body is not JSON in UTF-8"),
        (b'{"prompt": "a", "temperature": Infinity}', "the body is not JSON in UTF-8"),
        (b'{"prompt": "a", "temperature": 1e999}', ""),
        (b'{"prompt": "a", "max_tokens": ' + b"9" * 10000 + b"}", ""),
        (b'{"prompt": ' + b"[" * 100000 + b"]" * 100000 + b"}", ""),
        (b"[]", "the body must be a JSON object"),
        (b'"prompt"', "the body must be a JSON object"),
        (b"null", "the body must be a JSON object"),
        (b"5", "the body must be a JSON object"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(content: bytes, message: str, server: Server) -> None:
    assert message in error_of(server.post(COMPLETIONS, content=content, headers=JSON))["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/", "", "\xff"])
def test_a_body_of_another_kind_is_refused_with_the_header_to_send(kind: str, server: Server) -> None:
    response = server.post(COMPLETIONS, content=b'{"prompt": "a"}', headers={"Content-Type": kind.encode("latin-1")})
    assert "Content-Type: application/json" in error_of(response, 415)["message"]


def test_a_body_that_is_too_long_is_refused_however_its_length_is_told(server: Server) -> None:
    long = b'{"prompt": "' + b"a" * (1 << 20) + b'"}'
    assert "more than 1048576 bytes" in error_of(server.post(COMPLETIONS, content=long, headers=JSON), 413)["message"]
    halves = iter([long[: 1 << 19], long[1 << 19 :]])
    error_of(server.post(COMPLETIONS, content=halves, headers=JSON), 413)
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {10**15}\r\n\r\n"
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_not_waited_for(folder: Path) -> None:
    with serving(folder, "--client-timeout", "1") as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
            connection.sendall(head.encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_other_paths_methods_and_models_are_refused_in_the_same_shape(server: Server) -> None:
    assert error_of(server.get("/v1/nothing"), 404)["message"] == "GET /v1/nothing: not found"
    error_of(server.get(COMPLETIONS), 405)
    error_of(server.post("/health"), 405)
    with pytest.raises(NotFoundError, match="'gpt-4' not found; the only model is 'tunepress'"):
        server.openai().completions.create(model="gpt-4", prompt="a")
    assert error_of(server.get("/v1/models/gpt-4"), 404)["code"] == "model_not_found"


def test_a_key_is_wanted_where_one_is_set_and_never_shown(folder: Path) -> None:
    with serving(folder, TUNEPRESS_API_KEY=KEY) as server:
        for headers in ({}, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}, {"Authorization": f"Bearer {KEY}x"}):
            refused = server.post(COMPLETIONS, {"prompt": "a"}, headers=headers)
            assert error_of(refused, 401)["code"] == "invalid_api_key"
            assert refused.headers["WWW-Authenticate"] == "Bearer"
        error_of(server.post(COMPLETIONS, {"prompt": "a"}, headers={"Authorization": "Bearer schlüssel".encode()}), 401)
        error_of(server.post("/v1/classify", content=b"not read", headers={}), 401)
        error_of(server.get("/v1/models"), 401)
        with pytest.raises(AuthenticationError):
            server.openai("another").models.list()
        assert server.openai(KEY).completions.create(model="tunepress", prompt="a").choices
        assert server.get("/health").status_code == server.get("/metrics").status_code == 200
        assert KEY not in server.log() + server.get("/metrics").text


def test_errors_of_a_stream_that_has_not_begun_have_their_status(server: Server) -> None:
    error = error_of(server.post(COMPLETIONS, {"prompt": "a" * 512, "stream": True}))
    assert error["code"] == "context_length_exceeded"
    error_of(server.post(COMPLETIONS, {"prompt": ["a"] * 17, "stream": True}))


def test_the_openapi_document_tells_every_route(server: Server) -> None:
    document = json.loads(server.get("/openapi.json").text)
    assert set(document["paths"]) == {
        *("/v1/completions", "/v1/chat/completions", "/v1/classify", "/v1/decisions", "/v1/systemone"),
        *("/v1/models", "/v1/models/{name}", "/health", "/health/live", "/metrics"),
    }
