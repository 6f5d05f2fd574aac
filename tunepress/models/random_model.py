"""A model of a real architecture with random weights and a byte tokenizer, created without any download."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from tunepress.core.errors import InputError

SPECIAL = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"]  # Phi-3's markup
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def write_random_model(architecture: dict[str, Any], seed: int, folder: Path) -> None:
    """Writes a model with random weights of `seed` to `folder`.

    Args:
        architecture: fields of the model's transformers config; `model_type` selects the class.
        seed: of the weights.
        folder: an existing folder.

    Raises:
        InputError: transformers does not know the `model_type`, or it is missing.
    """
    tokenizer = byte_tokenizer()
    end, pad = tokenizer.convert_tokens_to_ids(["<|end|>", "<|endoftext|>"])
    fields = dict(architecture)
    if "model_type" not in fields:
        raise InputError("base_model.architecture: no model_type")
    if fields["model_type"] not in CONFIG_MAPPING:
        raise InputError(f"base_model.architecture.model_type: transformers does not know {fields['model_type']!r}")
    special = {"bos_token_id": pad, "eos_token_id": pad, "pad_token_id": pad}
    config = AutoConfig.for_model(fields.pop("model_type"), **fields, vocab_size=len(tokenizer), **special)
    torch.manual_seed(seed)  # set_seed of transformers imports peft and bitsandbytes, which takes seconds
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config = GenerationConfig(bos_token_id=pad, eos_token_id=[pad, end], pad_token_id=pad)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer without merges: a token is a byte or a special token of Phi-3's chat format."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(alphabet)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=SPECIAL[0], pad_token=SPECIAL[0], chat_template=CHAT_TEMPLATE)
