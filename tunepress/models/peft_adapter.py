"""A LoRA adapter as peft wrote it to a folder: its configuration and its tensors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peft import LoraConfig
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

from tunepress.core.errors import InputError, one_line
from tunepress.models.shards import StoredTensor, read_header

UNSUPPORTED = (  # fields of LoraConfig that make an adapter more than a product for each of some weights
    "target_parameters", "trainable_token_indices", "layer_replication", "megatron_config", "use_qalora", "use_bdlora",
    "arrow_config", "kasa_config", "velora_config", "monteclora_config", "alora_invocation_tokens",
)  # fmt: skip
BASE_CHANGING = ("pissa", "olora", "corda", "lora_ga", "loftq")  # initialisations that change the base model's weights


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter's files.

    Attributes:
        path: the file with its weights.
        config: peft's configuration.
        tensors: its weights by name.
    """

    path: Path
    config: LoraConfig
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def load(cls, folder: Path) -> "PeftAdapter":
        """Reads the configuration and the header of the weights.

        Raises:
            InputError: the folder has no adapter, or one that is not supported.
        """
        config = read_config(folder / CONFIG_NAME)
        path = folder / SAFETENSORS_WEIGHTS_NAME
        if not path.exists():
            raise InputError(f"{path}: not found; train again, or add the adapter's weights as safetensors")
        return cls(path, config, read_header(path))


def read_config(path: Path) -> LoraConfig:
    """Reads adapter_config.json.

    Raises:
        InputError: it is missing or damaged, or describes an adapter that is not supported.
    """
    if not path.exists():
        raise InputError(f"{path}: not found, so there is no adapter; run `make repro`")
    try:
        kind = json.loads(path.read_text(encoding="utf-8"))["peft_type"]
        if kind != "LORA":
            raise InputError(f"{path}: peft_type must be LORA, got {kind}; merge this adapter with peft")
        config: LoraConfig = LoraConfig.from_pretrained(path.parent)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not an adapter's configuration ({one_line(error)}); train again") from error
    for name in UNSUPPORTED:
        if getattr(config, name):
            raise InputError(f"{path}: {name} is not supported; merge this adapter with peft")
    if str(config.init_lora_weights).startswith(BASE_CHANGING):
        raise InputError(
            f"{path}: the initialisation {config.init_lora_weights} changed the base model's weights, and the adapter fits only "
            "those; save it with path_initial_model_for_weight_conversion"
        )
    return config
