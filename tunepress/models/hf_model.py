"""A model folder in Hugging Face's layout: checked before use, loaded with safetensors only."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME

from tunepress.core.errors import InputError
from tunepress.text.tokenizer import Encoder, Tokens, check_context

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel


def check(folder: Path) -> None:
    """Raises InputError unless `folder` has a config and weights as safetensors."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if not (folder / "config.json").exists():
        raise InputError(f"{folder}: no config.json, so this is no Hugging Face model folder")
    if not any(folder.glob("*.safetensors")):
        pickles = [file.name for file in sorted(folder.iterdir()) if file.suffix in {".bin", ".pt", ".pth", ".ckpt"}]
        found = f"only pickle weights ({', '.join(pickles)}), which can run code" if pickles else "no weights"
        raise InputError(f"{folder}: {found}; save the model with safe_serialization=True")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder."""
    if not folder.is_dir():  # transformers would take its name for a repo on the hub
        raise InputError(f"{folder}: no such folder")
    return AutoTokenizer.from_pretrained(folder)


def load_encoder(folder: Path, eos_token_ids: Sequence[int] = ()) -> Encoder:
    """The tokenizer of a model folder, with the tokens that end an answer.

    Args:
        folder: Hugging Face's layout.
        eos_token_ids: as prompt.json records them; without them, those of the folder.

    Raises:
        InputError: there is no such folder, or no token ends an answer.
    """
    tokenizer = load_tokenizer(folder)
    return Encoder(tokenizer, list(eos_token_ids) or find_eos_token_ids(folder, tokenizer))


def find_eos_token_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """The tokens that end an answer: of generation_config.json, otherwise of config.json, otherwise of the tokenizer.

    The files are read as they are: many of transformers' configurations set an eos_token_id where config.json has none.

    Raises:
        InputError: none of them names one, or a file names something else.
    """
    for name in (GENERATION_CONFIG_NAME, CONFIG_NAME):
        if ends := read_eos_token_ids(folder / name):
            return ends
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"{folder}: no token ends an answer: generation_config.json and config.json have no eos_token_id and "
            "tokenizer_config.json has no eos_token; write eos_token_id, the token's number, into generation_config.json"
        )
    return [tokenizer.eos_token_id]


def read_eos_token_ids(path: Path) -> Tokens:
    """`eos_token_id` of a configuration file, an int or a list, in its section for text where that has it; [] without one.

    Raises:
        InputError: the file is not JSON, or has something else in its place.
    """
    if not path.exists():
        return []
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        found = fields.get("eos_token_id", (fields.get("text_config") or {}).get("eos_token_id"))
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a model's configuration ({error})") from error
    ends = found if isinstance(found, list) else [] if found is None else [found]
    if not all(type(end) is int and end >= 0 for end in ends):
        raise InputError(f"{path}: eos_token_id must be a token's number or a list of them, got {json.dumps(found)}")
    return list(dict.fromkeys(ends))


def context_length(config: "PreTrainedConfig") -> int | None:
    """The tokens that a model has room for, as onnxruntime-genai's builder takes it from config.json; None: it does not say."""
    text = config.get_text_config()
    length = getattr(text, "seq_length", None) or getattr(text, "max_position_embeddings", None)
    return int(length) if length else None


def check_base_context(folder: Path, source_max_len: int) -> None:
    """Raises InputError if a row of `source_max_len` tokens does not fit the context of the base model in `folder`."""
    length = context_length(AutoConfig.from_pretrained(folder))
    if length is not None:
        check_context(source_max_len, length, "the base model")


def load_model(folder: Path, **options: Any) -> "PreTrainedModel":
    """The model of a folder, in the precision of its files unless `dtype` says otherwise."""
    # transformers without torch loads in a second, with it in five; only who loads a model waits for it
    from transformers import AutoModelForCausalLM

    check(folder)
    return AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, **options)


def empty_model(folder: Path) -> "PreTrainedModel":
    """The model of a folder without its weights: its modules and their shapes, tied where it is, on torch's meta device."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    check(folder)
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    model.tie_weights()
    return model


def read_tensor(folder: Path, name: str) -> "torch.Tensor":
    """One tensor of a model folder's files.

    Raises:
        InputError: none of the files has it.
    """
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118  (not a dict)
                return tensors.get_tensor(name)
    raise InputError(f"{folder}: no tensor {name!r} in its safetensors files")
