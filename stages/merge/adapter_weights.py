"""Finds the weights of the base model that each tensor of an adapter belongs to."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners import lora
from transformers import PreTrainedModel

from stages.merge.delta import LowRank
from tunepress.core.errors import InputError, one_line
from tunepress.models.peft_adapter import PeftAdapter
from tunepress.models.shards import StoredTensor

PREFIX = "base_model.model."  # of every name in the file
NAME = "default"  # peft's name of the only adapter


@dataclass(frozen=True)
class AdapterWeights:
    """The tensors of an adapter by the names of the base model's tensors.

    Attributes:
        layers: number of layers that the adapter changes.
        products: what is added to weights.
        biases: what is added to biases, with its factor.
        replacements: tensors that replace the base model's.
    """

    layers: int
    products: dict[str, LowRank]
    biases: dict[str, tuple[StoredTensor, float]]
    replacements: dict[str, StoredTensor]


def match_weights(adapter: PeftAdapter, model: PreTrainedModel) -> AdapterWeights:
    """Finds the base model's weight for each tensor of an adapter.

    Args:
        adapter: the adapter's files.
        model: the base model without weights; the adapter is added to it.

    Raises:
        InputError: the adapter was made for another model.
    """
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    adapted = add_adapter(adapter, model)
    expected = {name: tuple(value.shape) for name, value in adapter_state(adapted).items()}
    replacements = {name: stored for name, stored in adapter.tensors.items() if ".lora_" not in name}
    base_names = {name: name.removeprefix(PREFIX).replace(".base_layer.", ".") for name in replacements}
    check_shapes(adapter, expected | {name: shapes[base] for name, base in base_names.items() if base in shapes})
    for name in expected:
        if name not in adapter.tensors:
            raise InputError(f"{adapter.path}: {name} is missing; the adapter belongs to another base model")
    layers = {name: layer for name, layer in adapted.base_model.model.named_modules() if isinstance(layer, lora.LoraLayer)}
    return AdapterWeights(
        len(layers),
        {f"{name}.weight": product(adapter, name, layer) for name, layer in layers.items()},
        bias_changes(adapter, layers),
        {base_names[name]: stored for name, stored in replacements.items()},
    )


def add_adapter(adapter: PeftAdapter, model: PreTrainedModel) -> PeftModel:
    """Lets peft add the adapter's layers to a model, without any weights.

    Raises:
        InputError: peft finds no such layers, or one of a type that cannot be merged.
    """
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
    return adapted


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


def bias_changes(adapter: PeftAdapter, layers: Mapping[str, lora.LoraLayer]) -> dict[str, tuple[StoredTensor, float]]:
    changes = {}
    for name, layer in layers.items():
        if bias := adapter.tensors.get(f"{PREFIX}{name}.lora_B.bias"):
            if layer.get_base_layer().bias is None:
                raise InputError(
                    f"{adapter.path}: lora_bias adds a bias to {name}, which has none in the base model; train without lora_bias"
                )
            changes[f"{name}.bias"] = (bias, layer.scaling[NAME])
    return changes


def product(adapter: PeftAdapter, name: str, layer: lora.LoraLayer) -> LowRank:
    embedding = isinstance(layer, lora.Embedding)
    a, b = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
    return LowRank(
        adapter.tensors[f"{PREFIX}{name}.{a}"],
        adapter.tensors[f"{PREFIX}{name}.{b}"],
        layer.scaling[NAME],
        transposed=embedding or layer.fan_in_fan_out,
        magnitude=adapter.tensors.get(f"{PREFIX}{name}.lora_magnitude_vector"),
    )
