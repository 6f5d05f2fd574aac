"""onnxruntime-genai's builder, called so that the same model and options give the same bytes."""

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.build import windows
from tunepress.core.errors import InputError, one_line


@dataclass(frozen=True)
class Builder:
    """A target of the builder and its extra options.

    Attributes:
        precision: of the weights.
        execution_provider: that the model is for.
        extra_options: name=value, as on the builder's command line.
    """

    precision: str
    execution_provider: str
    extra_options: list[str]

    def options(self, source: Path) -> dict[str, Any]:
        """The extra options for a model folder, as the builder understands them.

        Raises:
            InputError: it does not.
        """
        from onnxruntime_genai.models.builder import parse_extra_options  # imports torch: five seconds

        with self.input_errors(), contextlib.redirect_stdout(io.StringIO()):
            target = (self.precision, self.execution_provider)
            parsed: dict[str, Any] = parse_extra_options("", str(source), "", *target, "", extra_options=self.extra_options)
            return parsed

    def build(self, source: Path, folder: Path) -> None:
        """Makes an onnxruntime-genai model folder of a model folder.

        Raises:
            InputError: the builder refuses to.
        """
        from onnxruntime_genai.models.builder import create_model

        logging.getLogger("onnxruntime").setLevel(logging.WARNING)  # two lines for each node otherwise
        # The builder deletes its cache folder when it is empty, so it gets one of its own.
        arguments = ("", str(source), str(folder), self.precision, self.execution_provider, str(folder / "cache"))
        options = self.options(source)
        complete(options["hf_details"]["hf_config"])
        options["windowed_kv_cache"] = False  # with one as short as the window, rewind_to fails past it
        with self.input_errors(), contextlib.redirect_stdout(io.StringIO()), hidden_git():
            create_model(*arguments, **options)

    @contextlib.contextmanager
    def input_errors(self) -> Iterator[None]:
        """Tells in an InputError what the builder's code says in an error of another kind."""
        try:
            yield
        except (ValueError, NotImplementedError, KeyError, RuntimeError) as error:
            target = f"{self.precision} for {self.execution_provider}"
            raise InputError(f"build: the builder refuses {target} ({one_line(error)})") from error


def complete(config: Any) -> None:
    """Adds to a config what the builder (0.18) reads and transformers 5 leaves out or calls otherwise."""
    windows.declare(config)
    if hasattr(config, "layer_norm_eps"):  # Phi; builders/base.py takes 1e-6 without this name
        config.rms_norm_eps = config.layer_norm_eps
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        rope["type"] = "longrope"  # builders/phi.py
    if config.model_type == "gemma3_text":  # builders/gemma.py
        config.rope_local_base_freq = rope["sliding_attention"]["rope_theta"]
        config.rope_parameters = rope["full_attention"]


@contextlib.contextmanager
def hidden_git() -> Iterator[None]:
    """Keeps git from the builder, which else writes into the model the commit of whatever repo the environment lies in.

    With .venv in this project that is the project's own HEAD, and every commit would give other bytes
    (onnxruntime_genai 0.18, models/builders/base.py, get_genai_commit). Without git it takes its own package's commit.
    """
    earlier = os.environ.get("GIT_DIR")
    os.environ["GIT_DIR"] = os.devnull
    try:
        yield
    finally:
        del os.environ["GIT_DIR"]
        if earlier is not None:
            os.environ["GIT_DIR"] = earlier
