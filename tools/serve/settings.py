"""Settings: what the command line says, and the limits that keep one client from taking all."""

from dataclasses import dataclass
from pathlib import Path

from stages.lib.edge.errors import InputError

CHARACTERS_PER_TOKEN = 16  # more than any prose has; a longer text is refused before a tokenizer, quadratic in a word, sees it


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
        timeout: seconds that a request may take, waiting included.
        grace: seconds that requests which have been taken are given after SIGTERM.
        api_key: what clients must show, None for nothing.
    """

    model: Path
    name: str
    host: str
    port: int
    queue: int
    max_prompts: int
    max_body: int
    timeout: float
    grace: float
    api_key: str | None

    def check(self) -> None:
        """Looks whether a server could run with these.

        Raises:
            InputError: it could not.
        """
        for option in ("queue", "max_prompts", "max_body", "timeout"):
            if getattr(self, option) <= 0:
                raise InputError(f"--{option.replace('_', '-')}: must be more than 0")
        if self.grace < 0:
            raise InputError("--grace: must be 0 or more")
        if self.max_prompts > self.queue + 1:
            raise InputError(f"--max-prompts: {self.max_prompts} would never fit a queue of {self.queue}; raise --queue")
        if not 0 <= self.port <= 65535:
            raise InputError("--port: must be between 0 and 65535")
        if not self.name.strip():
            raise InputError("--name: is empty")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise InputError("TUNEPRESS_API_KEY: must be printable ASCII, as an HTTP header is")
