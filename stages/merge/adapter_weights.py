"""Finds the weights of the base model that each tensor of an adapter belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass

from peft.tuners import lora
from transformers import PreTrainedModel

from stages.merge.delta import LowRank
from tunepress.models.peft_adapter import PREFIX, PeftAdapter, add_adapter, base_name
from tunepress.models.shards import StoredTensor

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
    adapted = add_adapter(adapter, model)
    replacements = {name: stored for name, stored in adapter.tensors.items() if ".lora_" not in name}
    layers = {name: layer for name, layer in adapted.base_model.model.named_modules() if isinstance(layer, lora.LoraLayer)}
    return AdapterWeights(
        len(layers),
        {f"{name}.weight": product(adapter, name, layer) for name, layer in layers.items()},
        bias_changes(adapter, layers),
        {base_name(name): stored for name, stored in replacements.items()},
    )


def bias_changes(adapter: PeftAdapter, layers: Mapping[str, lora.LoraLayer]) -> dict[str, tuple[StoredTensor, float]]:
    biases = {name: adapter.tensors.get(f"{PREFIX}{name}.lora_B.bias") for name in layers}
    return {f"{name}.bias": (bias, layers[name].scaling[NAME]) for name, bias in biases.items() if bias}


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
