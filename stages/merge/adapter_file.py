"""The adapter as peft wrote it to a folder: whether it can be merged, and which of its tensors belong to which weight."""

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

from stages.merge.delta import LowRank
from tunepress.core.errors import InputError, one_line
from tunepress.models.shards import StoredTensor, read_header

PREFIX = "base_model.model."  # of every name in the file
NAME = "default"  # of the only adapter
UNMERGEABLE = (  # fields of LoraConfig that make more of an adapter than a product for each of some weights
    "target_parameters", "trainable_token_indices", "layer_replication", "megatron_config", "use_qalora", "use_bdlora",
    "arrow_config", "kasa_config", "velora_config", "monteclora_config", "alora_invocation_tokens",
)  # fmt: skip
MOVING = ("pissa", "olora", "corda", "lora_ga", "loftq")  # initialisations that change the base model's weights


@dataclass(frozen=True)
class Pieces:
    """What an adapter has for the base model's tensors, by their names.

    Attributes:
        layers: how many it stands on.
        products: for weights.
        shifts: for biases, with the factor of each.
        whole: tensors in the place of the base model's.
    """

    layers: int
    products: dict[str, LowRank]
    shifts: dict[str, tuple[StoredTensor, float]]
    whole: dict[str, StoredTensor]


@dataclass(frozen=True)
class AdapterFile:
    """An adapter's files.

    Attributes:
        path: of its weights.
        config: what peft knows of it.
        tensors: its weights by name.
    """

    path: Path
    config: LoraConfig
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def of(cls, folder: Path) -> "AdapterFile":
        """Looks into a folder.

        Raises:
            InputError: there is no adapter in it, or none that can be merged.
        """
        path = folder / SAFETENSORS_WEIGHTS_NAME
        config = read_config(folder / CONFIG_NAME)
        if not path.exists():
            raise InputError(f"{path}: not found; train again, or bring the adapter's weights as safetensors")
        return cls(path, config, read_header(path))

    def pieces(self, model: PreTrainedModel) -> Pieces:
        """Finds the place of each of its tensors.

        Args:
            model: the base model without weights; the adapter is put on it.

        Raises:
            InputError: it was not made for this model.
        """
        places = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        adapted = self.put_on(model)
        wanted = {name: tuple(value.shape) for name, value in state_of(adapted).items()}
        whole = {name: stored for name, stored in self.tensors.items() if ".lora_" not in name}
        named = {name: name.removeprefix(PREFIX).replace(".base_layer.", ".") for name in whole}
        self._check(wanted | {name: places[place] for name, place in named.items() if place in places})
        for name in wanted:
            if name not in self.tensors:
                raise InputError(f"{self.path}: has no {name}, which the base model wants; it belongs to another one")
        layers = {name: layer for name, layer in adapted.base_model.model.named_modules() if isinstance(layer, lora.LoraLayer)}
        products = {f"{name}.weight": self._product(name, layer) for name, layer in layers.items()}
        return Pieces(len(layers), products, self._shifts(layers), {named[name]: stored for name, stored in whole.items()})

    def put_on(self, model: PreTrainedModel) -> PeftModel:
        """Lets peft find the layers of a model, without any weight.

        Raises:
            InputError: it finds none, or one of a kind that cannot be merged.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of its own merge, which unties wrongly what is tied
            try:
                config = replace(self.config, init_lora_weights=False)
                adapted = get_peft_model(model, config, low_cpu_mem_usage=True)
            except ValueError as error:
                raise InputError(f"{self.path}: does not fit the base model ({one_line(error)})") from error
        for name, layer in adapted.base_model.model.named_modules():
            if isinstance(layer, lora.LoraLayer) and type(layer) not in (lora.Linear, lora.Embedding):
                kind = type(layer.get_base_layer()).__name__
                raise InputError(f"{self.path}: {name} is a {kind}; only linear layers and embeddings can be merged")
        return adapted

    def _check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raises InputError for the first tensor that has no place, or not this shape."""
        for name, stored in self.tensors.items():
            stored.check_type()
            if name not in shapes:
                raise InputError(f"{self.path}: the base model has no place for {name}; the adapter belongs to another one")
            if stored.shape != shapes[name]:
                found, wanted = list(stored.shape), list(shapes[name])
                raise InputError(f"{self.path}: {name} is {found}, the base model wants {wanted}; it belongs to another one")

    def _shifts(self, layers: Mapping[str, lora.LoraLayer]) -> dict[str, tuple[StoredTensor, float]]:
        shifts = {}
        for name, layer in layers.items():
            if bias := self.tensors.get(f"{PREFIX}{name}.lora_B.bias"):
                if layer.get_base_layer().bias is None:
                    raise InputError(
                        f"{self.path}: lora_bias gives {name} a bias, and in the base model it has none to add it to"
                    )
                shifts[f"{name}.bias"] = (bias, layer.scaling[NAME])
        return shifts

    def _product(self, name: str, layer: lora.LoraLayer) -> LowRank:
        embedding = isinstance(layer, lora.Embedding)
        a, b = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
        return LowRank(
            self.tensors[f"{PREFIX}{name}.{a}"],
            self.tensors[f"{PREFIX}{name}.{b}"],
            layer.scaling[NAME],
            transposed=embedding or layer.fan_in_fan_out,
            magnitude=self.tensors.get(f"{PREFIX}{name}.lora_magnitude_vector"),
        )


def read_config(path: Path) -> LoraConfig:
    """What peft knows of an adapter.

    Raises:
        InputError: it is not there, or tells of an adapter that cannot be merged.
    """
    if not path.exists():
        raise InputError(f"{path}: not found, so there is no adapter; run `make repro`")
    try:
        kind = json.loads(path.read_text(encoding="utf-8"))["peft_type"]
        if kind != "LORA":
            raise InputError(f"{path}: an adapter of peft_type {kind} cannot be merged here, only LORA; merge it with peft")
        config: LoraConfig = LoraConfig.from_pretrained(path.parent)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no adapter's configuration ({one_line(error)}); train again") from error
    for name in UNMERGEABLE:
        if getattr(config, name):
            raise InputError(f"{path}: an adapter with {name} cannot be merged here; merge it with peft")
    if str(config.init_lora_weights).startswith(MOVING):
        raise InputError(
            f"{path}: an adapter initialised by {config.init_lora_weights} fits the weights that this left of the base model; "
            "save it with path_initial_model_for_weight_conversion"
        )
    return config


def state_of(adapted: PeftModel) -> dict[str, torch.Tensor]:
    """The tensors that peft would save, by name."""
    state: dict[str, torch.Tensor] = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return state
