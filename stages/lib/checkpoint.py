"""A model folder in Hugging Face's layout: checked before use, loaded with safetensors only."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from stages.lib.edge.errors import InputError
from stages.lib.tokens import Encoder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


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


def load_encoder(folder: Path) -> Encoder:
    """The tokenizer of a model folder, with the tokens that end an answer."""
    tokenizer = load_tokenizer(folder)
    generation = GenerationConfig.from_pretrained(folder).eos_token_id
    eos = [generation] if isinstance(generation, int) else list(generation or [])
    return Encoder(tokenizer, eos or [tokenizer.eos_token_id])


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
