"""A LoRA adapter as peft wrote it to a folder: its configuration and its tensors."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners import lora
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from transformers import PreTrainedModel

from tunepress.core.errors import InputError, one_line
from tunepress.models.shards import StoredTensor, read_header

PREFIX = "base_model.model."  # of every name in the file
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
            raise InputError(f"{path}: not found; save the adapter's weights as safetensors")
        return cls(path, config, read_header(path))


def read_config(path: Path) -> LoraConfig:
    """Reads adapter_config.json.

    Raises:
        InputError: it is missing or damaged, or describes an adapter that is not supported.
    """
    if not path.exists():
        raise InputError(f"{path}: not found, so there is no adapter; name its folder")
    try:
        kind = json.loads(path.read_text(encoding="utf-8"))["peft_type"]
        if kind != "LORA":
            raise InputError(f"{path}: peft_type must be LORA, got {kind}; merge this adapter with peft")
        config: LoraConfig = LoraConfig.from_pretrained(path.parent)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not an adapter's configuration ({one_line(error)}); save the adapter again") from error
    for name in UNSUPPORTED:
        if getattr(config, name):
            raise InputError(f"{path}: {name} is not supported; merge this adapter with peft")
    if str(config.init_lora_weights).startswith(BASE_CHANGING):
        raise InputError(
            f"{path}: the initialisation {config.init_lora_weights} changed the base model's weights, and the adapter fits only "
            "those; save it with path_initial_model_for_weight_conversion"
        )
    return config


def add_adapter(adapter: PeftAdapter, model: PreTrainedModel) -> PeftModel:
    """Lets peft add the adapter's layers to a model, without any weights.

    Raises:
        InputError: the adapter was made for another model, or changes a layer that cannot be merged.
    """
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about its own merge, which unties tied weights wrongly
        try:
            config = replace(adapter.config, init_lora_weights=False)
            adapted = get_peft_model(model, config, low_cpu_mem_usage=True)
        except ValueError as error:
            raise InputError(f"{adapter.path}: does not fit the base model ({one_line(error)})") from error
    for name, layer in adapted.base_model.model.named_modules():
        if isinstance(layer, lora.LoraLayer) and type(layer) not in (lora.Linear, lora.Embedding):
            kind = type(layer.get_base_layer()).__name__
            raise InputError(f"{adapter.path}: {name} is a {kind}; only linear layers and embeddings can be merged")
        if f"{PREFIX}{name}.lora_B.bias" in adapter.tensors and layer.get_base_layer().bias is None:
            raise InputError(
                f"{adapter.path}: lora_bias adds a bias to {name}, which has none in the base model; train without lora_bias"
            )
    expected = {name: tuple(value.shape) for name, value in adapter_state(adapted).items()}
    replaced = {name: base_name(name) for name in adapter.tensors if ".lora_" not in name}
    check_shapes(adapter, expected | {name: shapes[base] for name, base in replaced.items() if base in shapes})
    for name in expected:
        if name not in adapter.tensors:
            raise InputError(f"{adapter.path}: {name} is missing; the adapter belongs to another base model")
    return adapted


def base_name(name: str) -> str:
    """The base model's name of a tensor that an adapter replaces."""
    return name.removeprefix(PREFIX).replace(".base_layer.", ".")


def adapter_state(adapted: PeftModel) -> dict[str, torch.Tensor]:
    """The tensors that peft would save, by name."""
    state: dict[str, torch.Tensor] = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return state


def check_shapes(adapter: PeftAdapter, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises InputError for the first tensor that the base model has no place for, or one of another shape."""
    for name, stored in adapter.tensors.items():
        stored.check_type()
        if name not in shapes:
            raise InputError(f"{adapter.path}: the base model has no place for {name}; the adapter belongs to another one")
        if stored.shape != shapes[name]:
            raise InputError(
                f"{adapter.path}: {name} has the shape {list(stored.shape)}, the base model needs {list(shapes[name])}; "
                "the adapter belongs to another one"
            )
