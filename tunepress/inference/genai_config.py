"""genai_config.json, onnxruntime-genai's configuration of a model folder, and checks of it against the trained model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunepress.core.errors import InputError
from tunepress.text.prompt import Prompt
from tunepress.text.tokenizer import check_context

if TYPE_CHECKING:  # inference runs without transformers
    from tunepress.text.tokenizer import Encoder

FILE_NAME = "genai_config.json"


@dataclass(frozen=True)
class GenaiConfig:
    """The genai_config.json of a model folder.

    Attributes:
        path: of the file.
        model: the section of that name.
    """

    path: Path
    model: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "GenaiConfig":
        """Reads the file of a model folder.

        Raises:
            InputError: the file does not exist, or does not describe a model.
        """
        path = folder / FILE_NAME
        if not path.exists():
            raise InputError(f"{folder}: no {FILE_NAME}, so there is no ONNX model; run `make repro`")
        try:
            config = cls(path, json.loads(path.read_text(encoding="utf-8"))["model"])
            missing = [name for name in ("context_length", "decoder", "eos_token_id") if name not in config.model]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: not a configuration of onnxruntime-genai; run `make repro`") from error
        if missing:
            raise InputError(f"{path}: has no {missing[0]}; run `make repro`")
        return config

    @property
    def provider(self) -> str:
        """The execution provider, by the builder's name."""
        providers = [name for options in self.decoder["session_options"]["provider_options"] for name in options]
        return providers[0] if providers else "cpu"

    @property
    def decoder(self) -> dict[str, Any]:
        """The section about the graph."""
        return self.model["decoder"]

    @property
    def graph(self) -> Path:
        """Path of the graph."""
        return self.path.parent / self.decoder["filename"]

    @property
    def eos_token_ids(self) -> list[int]:
        """The tokens that end an answer."""
        eos = self.model["eos_token_id"]
        return list(eos) if isinstance(eos, list) else [eos]

    @property
    def eos_tokens(self) -> list[str]:
        """The texts of those that the tokenizer treats as special."""
        added = json.loads((self.path.parent / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        return [token["content"] for token in added if token["id"] in self.eos_token_ids]


def write_eos_token_ids(folder: Path, eos_token_ids: list[int]) -> None:
    """Replaces the tokens that end an answer with those of training.

    The builder (0.18) adds the tokenizer's eos_token before those of generation_config.json if it is not one of them.
    """
    config = GenaiConfig.read(folder)
    if config.eos_token_ids != eos_token_ids:
        content = json.loads(config.path.read_text(encoding="utf-8"))
        content["model"]["eos_token_id"] = eos_token_ids
        config.path.write_text(json.dumps(content, indent=4), encoding="utf-8")


def check(config: GenaiConfig, execution_provider: str, encoder: "Encoder", prompt: Prompt) -> None:
    """Checks that the model will run as it was trained.

    Raises:
        InputError: the provider or the EOS tokens differ, a special token is not in the vocabulary, the context is too short, or
            the prompt uses a chat template and the folder has none.
    """
    if config.provider != execution_provider:
        raise InputError(f"{FILE_NAME}: the builder made this model for {config.provider}; set build.execution_provider to that")
    check_tokens(config, encoder)
    check_context(prompt.source_max_len, config.model["context_length"], FILE_NAME)
    check_chat_template(config.path.parent, encoder, prompt)


def check_tokens(config: GenaiConfig, encoder: "Encoder") -> None:
    """Raises InputError if the EOS tokens are not those of training, or a special token is not in the vocabulary."""
    if config.eos_token_ids != encoder.eos_token_ids:
        raise InputError(
            f"{FILE_NAME}: eos_token_id {config.eos_token_ids} differs from {encoder.eos_token_ids}, which end the answers in "
            "training, so the model would end its answers elsewhere; run `dvc repro build`"
        )
    for name in ("bos_token_id", "pad_token_id"):
        if not 0 <= config.model[name] < config.model["vocab_size"]:
            raise InputError(
                f"{FILE_NAME}: {name} {config.model[name]} is not in the vocabulary of {config.model['vocab_size']} tokens; "
                f"correct {name} in the base model's config.json"
            )


def check_chat_template(folder: Path, encoder: "Encoder", prompt: Prompt) -> None:
    """Raises InputError if the prompt has chat markup and the tokenizer of the model folder has no chat template."""
    special = [str(token) for token in encoder.tokenizer.added_tokens_decoder.values() if token.special]
    markup = [token for token in special if token in (prompt.prompt or prompt.chat_template or "")]
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if markup and not settings.get("chat_template") and not (folder / "chat_template.jinja").exists():
        raise InputError(
            f"tokenizer_config.json: the prompt has chat markup ({markup[0]}), but the tokenizer has no chat template, which "
            "every chat program needs; put chat_template.jinja into the base model's folder, or write data.text_template plainly"
        )
