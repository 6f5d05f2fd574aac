"""The settings of a server, and the limits that keep one client from using all resources."""

import resource
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tunepress.core.errors import InputError

CHARACTERS_PER_TOKEN = (
    16  # more than prose has; longer texts are refused before a tokenizer, quadratic in the length of a word, reads them
)
MAX_TOKENS = 4096  # the default; 0.3 GB of keys and values with SmolLM2-135M, 3.2 GB with Phi-3-mini
BACKLOG = 128  # connections that the kernel accepts before the server does
FILES = 64  # open files besides the connections


@dataclass(frozen=True)
class Settings:
    """The settings of one server.

    Attributes:
        model: folder of the ONNX model.
        name: of the model, for clients.
        adapters: folders of models whose adapters are served too, by name.
        adapters_from: folder from which clients may load more; None: they may not.
        host: address to listen on.
        port: 0 chooses a free one.
        processes: number of processes that hold the model; each answers one prompt at a time.
        queue: maximum number of prompts that wait while others are answered.
        max_prompts: maximum number of prompts in a request.
        max_body: maximum size of a request's body in bytes.
        max_tokens: maximum length of a prompt and its answer together, which determines the memory; None for the default.
        max_connections: maximum number of simultaneous connections.
        timeout: seconds for a request, including its time in the queue.
        client_timeout: seconds for a client to send a head or a body, or to continue reading.
        grace: seconds after SIGTERM for accepted requests.
        restarts: of a model process, in a row without an answer in between, before it stays down; the server exits with the last.
        abstain_below: the probability of the most likely label below which /v1/classify gives none; None: as in prompt.json.
        api_key: that clients must send; None needs no key.
    """

    model: Path
    name: str
    adapters: Mapping[str, Path]
    adapters_from: Path | None
    host: str
    port: int
    processes: int
    queue: int
    max_prompts: int
    max_body: int
    max_tokens: int | None
    max_connections: int
    timeout: float
    client_timeout: float
    grace: float
    restarts: int
    abstain_below: float | None
    api_key: str | None

    def check(self) -> None:
        """Checks the settings, and raises this process's limit of open files if it is too low.

        Raises:
            InputError: a setting is invalid.
        """
        for option in ("processes", "queue", "max_prompts", "max_body", "max_connections", "timeout", "client_timeout"):
            if getattr(self, option) <= 0:
                raise InputError(f"--{option.replace('_', '-')}: must be greater than 0")
        for option in ("grace", "restarts"):
            if getattr(self, option) < 0:
                raise InputError(f"--{option}: must be at least 0")
        if self.max_tokens is not None and self.max_tokens < 2:
            raise InputError(f"--max-tokens: must be at least 2, a prompt and an answer of one token each, got {self.max_tokens}")
        self._check_files()
        if self.max_prompts > self.queue + self.processes:
            raise InputError(f"--max-prompts: {self.max_prompts} prompts never fit a queue of {self.queue}; increase --queue")
        if not 0 <= self.port <= 65535:
            raise InputError("--port: must be between 0 and 65535")
        if not self.name.strip():
            raise InputError("--name: must not be empty")
        if self.name in self.adapters:
            raise InputError(f"--adapter: {self.name} is the name of the model itself; choose another one, or set --name")
        if self.adapters_from and not self.adapters_from.is_dir():
            raise InputError(f"--adapters-from: {self.adapters_from} is not a folder")
        if self.api_key is not None:
            self._check_key(self.api_key)

    def max_length(self, context_length: int, longest_row: int) -> int:
        """Returns the maximum number of tokens of a prompt and its answer together.

        Args:
            context_length: of the model.
            longest_row: maximum number of tokens of a training row.

        Raises:
            InputError: --max-tokens exceeds the model's context.
        """
        if self.max_tokens is None:
            return min(context_length, max(MAX_TOKENS, longest_row))
        if self.max_tokens > context_length:
            raise InputError(
                f"--max-tokens: must be at most {context_length}, the length of the model's context, got {self.max_tokens}"
            )
        return self.max_tokens

    def _check_files(self) -> None:
        needed = self.max_connections + 2 * BACKLOG + FILES
        limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if resource.RLIM_INFINITY != limit < needed:
            reachable = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
            with suppress(OSError, ValueError):  # the system's own limit is lower
                resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
                limit = reachable
        if limit != resource.RLIM_INFINITY and limit < needed:
            reason = (
                f"{self.max_connections} need {needed} open files, and the limit is {limit} (ulimit -n); raise it or use fewer"
            )
            raise InputError(f"--max-connections: {reason}")

    @staticmethod
    def _check_key(key: str) -> None:
        if not key.strip():  # rather a secret that did not arrive than the intention to serve without a key
            raise InputError("TUNEPRESS_API_KEY: is set and empty; unset it to serve without a key")
        if not (key.isascii() and key.isprintable()) or key != key.strip():
            raise InputError("TUNEPRESS_API_KEY: must be printable ASCII without surrounding spaces, to fit an HTTP header")
