"""genai_config.json: what a model folder tells onnxruntime-genai, held against the model that was trained."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunepress.core.errors import InputError
from tunepress.text.prompt import Prompt
from tunepress.text.tokenizer import check_context

if TYPE_CHECKING:  # whoever answers with a model has no transformers, which it imports
    from tunepress.text.tokenizer import Encoder

FILE_NAME = "genai_config.json"


@dataclass(frozen=True)
class GenaiConfig:
    """The file of a folder.

    Attributes:
        path: of the file.
        model: its section of that name.
    """

    path: Path
    model: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "GenaiConfig":
        """Reads the file of a model folder.

        Raises:
            InputError: there is none.
        """
        path = folder / FILE_NAME
        if not path.exists():
            raise InputError(f"{folder}: no {FILE_NAME}, so there is no ONNX model; run `make repro`")
        return cls(path, json.loads(path.read_text(encoding="utf-8"))["model"])

    @property
    def provider(self) -> str:
        """The execution provider, by the builder's name."""
        named = [name for options in self.decoder["session_options"]["provider_options"] for name in options]
        return named[0] if named else "cpu"

    @property
    def decoder(self) -> dict[str, Any]:
        """What is said of the graph."""
        return self.model["decoder"]

    @property
    def graph(self) -> Path:
        """The graph's file."""
        return self.path.parent / self.decoder["filename"]

    @property
    def eos_token_ids(self) -> list[int]:
        """The tokens that end an answer."""
        eos = self.model["eos_token_id"]
        return list(eos) if isinstance(eos, list) else [eos]


def write_eos_token_ids(folder: Path, eos_token_ids: list[int]) -> None:
    """Makes the tokens that end an answer those of training.

    The builder (0.18) puts the tokenizer's eos_token before those of generation_config.json, where it is not among them.
    """
    config = GenaiConfig.read(folder)
    if config.eos_token_ids != eos_token_ids:
        content = json.loads(config.path.read_text(encoding="utf-8"))
        content["model"]["eos_token_id"] = eos_token_ids
        config.path.write_text(json.dumps(content, indent=4), encoding="utf-8")


def check(config: GenaiConfig, execution_provider: str, encoder: "Encoder", prompt: Prompt) -> None:
    """Looks whether the model will run as it was trained.

    Raises:
        InputError: it is told another provider, other ends of an answer, tokens that it has not, too short a context, or no chat
            template where the prompt is in one.
    """
    if config.provider != execution_provider:
        raise InputError(f"{FILE_NAME}: the builder made this model for {config.provider}; set build.execution_provider to that")
    check_tokens(config, encoder)
    check_context(prompt.source_max_len, config.model["context_length"], FILE_NAME)
    check_chat_template(config.path.parent, encoder, prompt)


def check_tokens(config: GenaiConfig, encoder: "Encoder") -> None:
    """Raises InputError where the tokens with a meaning of their own are not those of training, or not in the vocabulary."""
    if config.eos_token_ids != encoder.eos_token_ids:
        raise InputError(
            f"{FILE_NAME}: eos_token_id {config.eos_token_ids} differs from {encoder.eos_token_ids}, which end the answers of "
            "training, so the model would end its answers elsewhere; run `dvc repro build`"
        )
    for name in ("bos_token_id", "pad_token_id"):
        if not 0 <= config.model[name] < config.model["vocab_size"]:
            raise InputError(
                f"{FILE_NAME}: {name} {config.model[name]} is no token of the {config.model['vocab_size']} that the model has; "
                f"correct {name} in the base model's config.json"
            )


def check_chat_template(folder: Path, encoder: "Encoder", prompt: Prompt) -> None:
    """Raises InputError where the prompt is in chat markup and the shipped tokenizer has no template to write it with."""
    special = [str(token) for token in encoder.tokenizer.added_tokens_decoder.values() if token.special]
    markup = [token for token in special if token in prompt.prompt]
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if markup and not settings.get("chat_template") and not (folder / "chat_template.jinja").exists():
        raise InputError(
            f"tokenizer_config.json: the prompt has chat markup ({markup[0]}), but the tokenizer has no chat template, which "
            "every chat program wants; put chat_template.jinja into the base model's folder, or write data.text_template plainly"
        )
