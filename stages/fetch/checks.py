"""Checks whether a base model can pass every stage, before anything is trained."""

from pathlib import Path

from tunepress.core.errors import InputError
from tunepress.models import architectures
from tunepress.models.hf_model import check, empty_model, find_eos_token_ids, load_config, load_tokenizer
from tunepress.models.shards import Shards


def check_usable(folder: Path) -> None:
    """Checks a model folder. Reads no weights, only the headers of their files.

    Raises:
        InputError: a later stage would fail on the model, or compute something else.
    """
    check(folder)
    architectures.check(folder)
    check_tokens(folder)
    check_weights(folder)


def check_tokens(folder: Path) -> None:
    """Raises InputError if a token has no embedding, or if the files disagree about the token that ends an answer."""
    tokenizer, embeddings = load_tokenizer(folder), load_config(folder).vocab_size
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    eos_token_ids = find_eos_token_ids(folder, tokenizer)
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, *eos_token_ids} - {None}
    used = set(tokenizer.get_vocab().values()) - special | ends  # Gemma 3's image token is outside, and never in a text
    if max(used, default=0) >= embeddings:
        outside = min(number for number in used if number >= embeddings)
        raise InputError(
            f"{folder}: the tokenizer has token {outside} ({tokenizer.convert_ids_to_tokens(outside)}), and the model has "
            f"{embeddings} embeddings; use the tokenizer that it was trained with, or resize its embeddings and save it"
        )
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in eos_token_ids:
        raise InputError(
            f"{folder}: tokenizer_config.json ends an answer with {tokenizer.eos_token} ({tokenizer.eos_token_id}), and "
            f"generation_config.json or config.json with {', '.join(map(str, eos_token_ids))}; write all into eos_token_id there"
        )


def check_weights(folder: Path) -> None:
    """Raises InputError if weights are missing, have another shape than the config says, or are of a type without training."""
    tensors = Shards.of(folder).tensors
    for tensor in tensors.values():
        tensor.check_type()
    for name, parameter in empty_model(folder).named_parameters():  # tied weights once
        if name not in tensors:
            raise InputError(f"{folder}: the weights have no {name}; download or save the model again")
        if tensors[name].shape != parameter.shape:
            sizes = " and ".join("x".join(map(str, shape)) for shape in (tensors[name].shape, parameter.shape))
            raise InputError(f"{folder}: {name} has the sizes {sizes}, by its file and by config.json; save the model again")
