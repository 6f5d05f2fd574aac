"""Calls onnxruntime-genai's builder so that the same model and options give the same bytes."""

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.build import windows
from stages.build.repairs import repair
from tunepress.config.build import AUTO, GPTQ, Build
from tunepress.core.errors import InputError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Builder:
    """A target of the builder and its extra options.

    Attributes:
        precision: precision of the weights.
        execution_provider: the execution provider that the model is for.
        extra_options: name=value, as on the builder's command line.
    """

    precision: str
    execution_provider: str
    extra_options: list[str]

    def options(self, source: Path) -> dict[str, Any]:
        """The extra options for a model folder, parsed by the builder.

        Raises:
            InputError: the builder rejects them.
        """
        from onnxruntime_genai.models.builder import parse_extra_options  # imports torch: five seconds

        with self.input_errors(), contextlib.redirect_stdout(io.StringIO()):
            target = (self.precision, self.execution_provider)
            parsed: dict[str, Any] = parse_extra_options("", str(source), "", *target, "", extra_options=self.extra_options)
            return parsed

    def build(self, source: Path, folder: Path, weights: "PreTrainedModel | None" = None) -> None:
        """Builds an onnxruntime-genai model folder from a Hugging Face model folder.

        Args:
            source: Hugging Face's layout.
            folder: the output.
            weights: the model of `source` with quantized weights; None: the builder loads them and quantizes.

        Raises:
            InputError: the builder rejects the model or the options.
        """
        from onnxruntime_genai.models.builder import create_model

        repair()
        logging.getLogger("onnxruntime").setLevel(logging.WARNING)  # otherwise it prints two lines for each node
        # The builder deletes its cache folder if it is empty, so it gets a separate one.
        arguments = ("", str(source), str(folder), self.precision, self.execution_provider, str(folder / "cache"))
        options = self.options(source)
        complete_config(options["hf_details"]["hf_config"])
        options["windowed_kv_cache"] = False  # with a cache as short as the window, rewind_to fails beyond it
        with self.input_errors(), contextlib.redirect_stdout(io.StringIO()), hidden_git(), loaded(weights):
            create_model(*arguments, **options)

    @contextlib.contextmanager
    def input_errors(self) -> Iterator[None]:
        """Converts the errors of the builder to InputError."""
        try:
            yield
        except (ValueError, NotImplementedError, KeyError, RuntimeError) as error:
            target = f"{self.precision} for {self.execution_provider}"
            raise InputError(f"build: the builder refuses {target} ({one_line(error)})") from error


@contextlib.contextmanager
def loaded(weights: "PreTrainedModel | None") -> Iterator[None]:
    """Gives the builder a model that is in memory, instead of letting it load one."""
    from onnxruntime_genai.models.builder import Model

    load_weights = Model.load_weights
    if weights is not None:
        Model.load_weights = lambda *_: weights
    try:
        yield
    finally:
        Model.load_weights = load_weights


def complete_config(config: Any) -> None:
    """Adds the fields that the builder (0.18) reads and transformers 5 leaves out or calls differently."""
    windows.declare(config)
    if hasattr(config, "layer_norm_eps"):  # Phi; builders/base.py uses 1e-6 without this name
        config.rms_norm_eps = config.layer_norm_eps
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        rope["type"] = "longrope"  # builders/phi.py
    if config.model_type == "gemma3_text":  # builders/gemma.py
        config.rope_local_base_freq = rope["sliding_attention"]["rope_theta"]
        config.rope_parameters = rope["full_attention"]


@contextlib.contextmanager
def hidden_git() -> Iterator[None]:
    """Hides git from the builder, which otherwise writes the commit of the repo around the environment into the model.

    With .venv in this project that is the project's own HEAD, and every commit would give other bytes
    (onnxruntime_genai 0.18, models/builders/base.py, get_genai_commit). Without git it uses its own package's commit.
    """
    previous = os.environ.get("GIT_DIR")
    os.environ["GIT_DIR"] = os.devnull
    try:
        yield
    finally:
        del os.environ["GIT_DIR"]
        if previous is not None:
            os.environ["GIT_DIR"] = previous


def key_value_pairs(build: Build) -> list[str]:
    """The options of a recipe as the builder reads them, without those that are null.

    What gptq leaves to the builder, the head and the embeddings tied to it, is rounded by k_quant: by "default" the builder
    (0.18) gives a tied head in 8 bits another name than the one its embeddings look for, and the model does not load.
    """
    options = {
        "algo_config": "k_quant" if build.algo_config in (AUTO, GPTQ) else build.algo_config,
        "block_size": build.block_size,
        "accuracy_level": build.accuracy_level,
        "is_symmetric": build.is_symmetric,
        "matmul_mixed_precision": build.matmul_mixed_precision,
        "nodes_to_exclude": ",".join(build.nodes_to_exclude) or None,
    }
    return [f"{name}={value}" for name, value in (options | build.extra_options).items() if value is not None]
