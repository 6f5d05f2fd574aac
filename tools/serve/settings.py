"""Settings: what the command line says, and the limits that keep one client from taking all."""

import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tunepress.core.errors import InputError

CHARACTERS_PER_TOKEN = 16  # more than any prose has; a longer text is refused before a tokenizer, quadratic in a word, sees it
MAX_TOKENS = 4096  # by default; 0.3 GB of keys and values with SmolLM2-135M, 3.2 GB with Phi-3-mini
BACKLOG = 128  # connections that are accepted at once, before the first of them is looked at
FILES = 64  # open files beside the connections


@dataclass(frozen=True)
class Settings:
    """Of one server.

    Attributes:
        model: folder of the ONNX model.
        name: by which clients call the model.
        host: address to listen at.
        port: 0 takes a free one.
        queue: prompts that may wait while another is answered.
        max_prompts: of one request.
        max_body: bytes of one request.
        max_tokens: of a prompt and its answer together, which decide the memory; None for the default.
        max_connections: at once.
        timeout: seconds that a request may take, waiting included.
        client_timeout: seconds that a client may take to send a head or a body, and to read on.
        grace: seconds that requests which have been taken are given after SIGTERM.
        restarts: of the model's process, in a row without an answer in between, before the server gives up.
        api_key: what clients must show, None for nothing.
    """

    model: Path
    name: str
    host: str
    port: int
    queue: int
    max_prompts: int
    max_body: int
    max_tokens: int | None
    max_connections: int
    timeout: float
    client_timeout: float
    grace: float
    restarts: int
    api_key: str | None

    def check(self) -> None:
        """Looks whether a server could run with these, and raises this process's limit of open files where it is too low.

        Raises:
            InputError: it could not.
        """
        for option in ("queue", "max_prompts", "max_body", "max_connections", "timeout", "client_timeout"):
            if getattr(self, option) <= 0:
                raise InputError(f"--{option.replace('_', '-')}: must be more than 0")
        for option in ("grace", "restarts"):
            if getattr(self, option) < 0:
                raise InputError(f"--{option}: must be 0 or more")
        if self.max_tokens is not None and self.max_tokens < 2:
            raise InputError(f"--max-tokens: must be at least 2, a prompt and an answer of one token each, got {self.max_tokens}")
        self._check_files()
        if self.max_prompts > self.queue + 1:
            raise InputError(f"--max-prompts: {self.max_prompts} would never fit a queue of {self.queue}; raise --queue")
        if not 0 <= self.port <= 65535:
            raise InputError("--port: must be between 0 and 65535")
        if not self.name.strip():
            raise InputError("--name: is empty")
        if self.api_key is not None:
            self._check_key(self.api_key)

    def max_length(self, context_length: int, longest_row: int) -> int:
        """Tokens that a prompt and its answer may have together.

        Args:
            context_length: of the model.
            longest_row: tokens that a training row could have.

        Raises:
            InputError: more than the model has room for.
        """
        if self.max_tokens is None:
            return min(context_length, max(MAX_TOKENS, longest_row))
        if self.max_tokens > context_length:
            raise InputError(f"--max-tokens: {self.max_tokens} is more than the {context_length} of the model's context")
        return self.max_tokens

    def _check_files(self) -> None:
        needed = self.max_connections + 2 * BACKLOG + FILES
        limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if resource.RLIM_INFINITY != limit < needed:
            reachable = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
            with suppress(OSError, ValueError):  # a limit of the whole system
                resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
                limit = reachable
        if limit != resource.RLIM_INFINITY and limit < needed:
            reason = f"{self.max_connections} need {needed} open files, of at most {limit} (ulimit -n); raise that or lower this"
            raise InputError(f"--max-connections: {reason}")

    @staticmethod
    def _check_key(key: str) -> None:
        if not key.strip():  # a secret that did not arrive, and not the wish for an open server
            raise InputError("TUNEPRESS_API_KEY: is set and empty; unset it to serve without a key")
        if not (key.isascii() and key.isprintable()) or key != key.strip():
            raise InputError("TUNEPRESS_API_KEY: must be printable ASCII without spaces around it, as an HTTP header is")
