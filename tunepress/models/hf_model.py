"""A model folder in Hugging Face's layout: checking it, and loading it from safetensors only."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME

from tunepress.core.errors import InputError, one_line
from tunepress.text.tokenizer import Encoder, Tokens, check_context

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel


NO_CODE = "code in a model folder is never run, so use a model that the installed transformers knows"


def check(folder: Path) -> None:
    """Raises InputError unless `folder` has a config and weights as safetensors, and no adapter."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if (folder / "adapter_config.json").exists() or (folder / "adapter_model.safetensors").exists():
        raise InputError(f"{folder}: has an adapter; use its base model, or merge it into the weights and save the merged model")
    if not (folder / "config.json").exists():
        raise InputError(f"{folder}: no config.json, so this is not a Hugging Face model folder")
    if not any(folder.glob("*.safetensors")):
        pickles = [file.name for file in sorted(folder.iterdir()) if file.suffix in {".bin", ".pt", ".pth", ".ckpt"}]
        problem = f"only pickle weights ({', '.join(pickles)}), which can run code" if pickles else "no weights"
        raise InputError(f"{folder}: {problem}; save the model with safe_serialization=True")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a model folder.

    Raises:
        InputError: the folder does not exist, or the tokenizer needs code of its own, which is never run.
    """
    if not folder.is_dir():  # transformers would treat its name as a repo on the Hub
        raise InputError(f"{folder}: no such folder")
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)  # without False it asks on the terminal
    except ValueError as error:
        raise InputError(f"{folder}: the tokenizer cannot be loaded ({one_line(error)}); {NO_CODE}") from error


def load_config(folder: Path) -> "PreTrainedConfig":
    """Loads the config of a model folder.

    Raises:
        InputError: transformers has no code for this kind of model.
    """
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        raise InputError(f"{folder}/config.json: cannot be loaded ({one_line(error)}); {NO_CODE}") from error


def load_encoder(folder: Path, eos_token_ids: Sequence[int] = ()) -> Encoder:
    """The tokenizer of a model folder, with the tokens that end an answer.

    Args:
        folder: Hugging Face's layout.
        eos_token_ids: those in prompt.json; if empty, those of the folder.

    Raises:
        InputError: the folder does not exist, or no token ends an answer.
    """
    tokenizer = load_tokenizer(folder)
    ends, outside = list(eos_token_ids) or find_eos_token_ids(folder, tokenizer), frozenset[int]()
    if (folder / CONFIG_NAME).exists():  # not in onnxruntime-genai's layout
        fields = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        embeddings = fields.get("vocab_size", (fields.get("text_config") or {}).get("vocab_size"))
        outside = frozenset(number for number in tokenizer.added_tokens_decoder if embeddings and number >= embeddings)
    return Encoder(tokenizer, ends, outside)


def find_eos_token_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """The tokens that end an answer: from generation_config.json, otherwise from config.json, otherwise from the tokenizer.

    The files are read directly, because many configuration classes of transformers have a default for a missing eos_token_id.

    Raises:
        InputError: none of them has such a token, or the value in a file is not valid.
    """
    for name in (GENERATION_CONFIG_NAME, CONFIG_NAME):
        if eos_token_ids := read_eos_token_ids(folder / name):
            return eos_token_ids
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"{folder}: no token ends an answer: generation_config.json and config.json have no eos_token_id and "
            "tokenizer_config.json has no eos_token; write eos_token_id, the token's number, into generation_config.json"
        )
    return [tokenizer.eos_token_id]


def read_eos_token_ids(path: Path) -> Tokens:
    """The `eos_token_id` of a configuration file, or of its section text_config, as a list; empty if there is none.

    Raises:
        InputError: the file is not JSON, or the value is not a number or a list of numbers.
    """
    if not path.exists():
        return []
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        value = fields.get("eos_token_id", (fields.get("text_config") or {}).get("eos_token_id"))
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a model's configuration ({error})") from error
    tokens = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(token) is int and token >= 0 for token in tokens):
        raise InputError(f"{path}: eos_token_id must be a token's number or a list of them, got {json.dumps(value)}")
    return list(dict.fromkeys(tokens))


def context_length(config: "PreTrainedConfig") -> int | None:
    """A model's context length in tokens, which onnxruntime-genai's builder takes from the same fields; None if unknown."""
    text = config.get_text_config()
    length = getattr(text, "seq_length", None) or getattr(text, "max_position_embeddings", None)
    return int(length) if length else None


def check_base_context(folder: Path, source_max_len: int) -> None:
    """Raises InputError if a row of `source_max_len` tokens does not fit the context of the base model in `folder`."""
    length = context_length(load_config(folder))
    if length is not None:
        check_context(source_max_len, length, "the base model")


def load_model(folder: Path, **options: Any) -> "PreTrainedModel":
    """Loads the model of a folder, by default in the precision of its files; `options` are those of from_pretrained."""
    # importing transformers takes one second without torch and five with it, so only callers that load a model wait for it
    from transformers import AutoModelForCausalLM

    check(folder)
    return AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, trust_remote_code=False, **options)


def empty_model(folder: Path, **options: Any) -> "PreTrainedModel":
    """The model of a folder without its weights, on torch's meta device. Tied weights are tied. `options` are from_config's."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    check(folder)
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(load_config(folder), **options)
    model.tie_weights()
    return model


def read_tensor(folder: Path, name: str) -> "torch.Tensor":
    """Reads one tensor from the safetensors files of a model folder.

    Raises:
        InputError: none of the files contains it.
    """
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118  (not a dict)
                return tensors.get_tensor(name)
    raise InputError(f"{folder}: no tensor {name!r} in its safetensors files")
