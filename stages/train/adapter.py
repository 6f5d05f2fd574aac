"""Adds an adapter to a base model, and saves it so that it fits the base model's own weights."""

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from transformers import PreTrainedModel, set_seed

from stages.train.fused_linear import FusedLinear
from tunepress.config.adapter import Adapter, moves_the_base
from tunepress.core.errors import InputError
from tunepress.models.bnb_4bit import disable_repacking
from tunepress.models.hf_model import empty_model, read_tensor


def lora_config(adapter: Adapter, init_lora_weights: bool | str) -> LoraConfig:
    modules = adapter.target_modules if isinstance(adapter.target_modules, str) else list(adapter.target_modules)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.r,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.lora_dropout,
        target_modules=modules,
        use_rslora=adapter.method.value == "rslora",
        use_dora=adapter.method.use_dora,
        init_lora_weights=init_lora_weights,
    )
    if not adapter.method.quantized:  # quantized layers are torch.nn.Linear too
        config._register_custom_module({torch.nn.Linear: FusedLinear})
    return config


def outline(folder: Path, adapter: Adapter) -> PeftModel:
    """The adapted model of a folder without any weights, for its shapes and to check that the adapter fits it.

    Raises:
        InputError: adapter.target_modules does not match a module or matches one that cannot have this adapter, or adapter.r is
            greater than a weight's rank.
    """
    model = empty_model(folder)  # tied, so that a head that is the embedding counts once
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    linear_names = ", ".join(sorted({name.rsplit(".")[-1] for name in linear}))
    modules = adapter.target_modules
    unmatched = [] if isinstance(modules, str) else [name for name in modules if not matches(model, name)]
    if unmatched:  # peft accepts the list if one of them matches
        raise InputError(f"adapter.target_modules: {unmatched} match nothing; the model has {linear_names}")
    try:
        adapted = get_peft_model(model, lora_config(adapter, init_lora_weights=False), low_cpu_mem_usage=True)
    except ValueError as error:
        if "not supported" in str(error):
            raise InputError(f"adapter.target_modules: {modules} match more than layers; the model has {linear_names}") from error
        if "arget modules" not in str(error):
            raise
        raise InputError(f"adapter.target_modules: {modules} match nothing; the model has {linear_names}") from error
    check_initialisation(adapted, adapter)
    return adapted


def check_initialisation(model: PeftModel, adapter: Adapter) -> None:
    """Raises InputError if adapter.init_lora_weights decomposes weights and those of `model` cannot be decomposed so."""
    init = adapter.init_lora_weights
    if not moves_the_base(init) and init != "loftq":
        return
    layers = lora_layers(model)
    if any(layer.lora_embedding_A for layer in layers):  # peft initialises these as LoRA does, and its conversion loses them
        raise InputError(f"adapter.target_modules: init_lora_weights={init} needs linear layers, and one is an embedding")
    rank = min(min(layer.in_features, layer.out_features) for layer in layers)
    if adapter.r > rank:
        raise InputError(f"adapter.r: must be at most {rank} with init_lora_weights={init} and this model, got {adapter.r}")


def matches(model: torch.nn.Module, name: str) -> bool:
    """Whether a module has this name, compared as peft does."""
    return any(key == name or key.endswith(f".{name}") for key, _ in model.named_modules())


def lora_layers(model: PeftModel) -> list[Any]:
    """The layers that the adapter changes."""
    return [module for module in model.modules() if hasattr(module, "lora_A") and hasattr(module, "in_features")]


def with_adapter(model: PreTrainedModel, adapter: Adapter, seed: int, folder: Path) -> PeftModel:
    """Freezes the model and adds an adapter, whose initial weights depend only on `seed`.

    Args:
        model: the base model; the olora and pissa initialisations change its weights.
        adapter: a configuration that `outline` has accepted.
        seed: seed of the adapter's initial weights.
        folder: the base model's folder, whose unquantized weights loftq compares with.
    """
    disable_repacking(model)
    set_seed(seed)  # before the weights are made, not after
    loftq = adapter.init_lora_weights == "loftq"
    adapted = get_peft_model(model, lora_config(adapter, init_lora_weights=True if loftq else adapter.init_lora_weights))
    if loftq:
        fit_to_quantization(adapted, folder)
    return adapted


@torch.no_grad()
def fit_to_quantization(model: PeftModel, folder: Path) -> None:
    """Gives the adapter initial weights that compensate for the base model's quantization (LoftQ, one iteration).

    B A is the best product of rank r for W - Q(W), divided by the adapter's scale. peft's replace_lora_weights_loftq
    leaves out that scale, and needs a GPU.
    """
    from bitsandbytes.functional import dequantize_4bit

    for name, layer in model.get_base_model().named_modules():
        if not hasattr(layer, "lora_A") or not hasattr(layer.base_layer.weight, "quant_state"):  # the head is not quantized
            continue
        (active,) = layer.lora_A
        packed, rank = layer.base_layer.weight, layer.r[active]
        error = read_tensor(folder, f"{name}.weight").to(packed.device).float() - dequantize_4bit(packed.data, packed.quant_state)
        # rounding errors have a flat spectrum, for which the randomized decomposition needs twice the rank
        left, values, right = torch.svd_lowrank(error, q=min(2 * rank, *error.shape), niter=4)
        root = (values[:rank] / layer.scaling[active]).sqrt()
        layer.lora_A[active].weight.copy_(root[:, None] * right.T[:rank])
        layer.lora_B[active].weight.copy_(left[:, :rank] * root)


def save(model: PeftModel, weights: dict[str, torch.Tensor] | None, initial: Path | None, folder: Path) -> None:
    """Writes an adapter for the base model's own weights, in peft's layout.

    If the initialisation took the adapter's initial value out of the base model's weights, the difference between the trained
    and the initial adapter is written: an adapter of twice the rank (peft, "convert PiSSA to LoRA").

    Args:
        model: the trained model.
        weights: the adapter's state if FSDP has distributed the model over several processes.
        initial: folder of the adapter before training, for those initialisations.
        folder: an existing folder.
    """
    for config in model.peft_config.values():
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)  # the order of a set differs from run to run
    options = {"path_initial_model_for_weight_conversion": str(initial)} if initial else {}
    if initial and weights:  # peft then looks for the initial adapter in `weights`, under the names of the wrapped model
        before = load_file(initial / SAFETENSORS_WEIGHTS_NAME)
        weights |= {
            name.removeprefix("base_model.").replace(".weight", f".{initial.name}.weight"): before[name] for name in before
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # peft advises to convert the adapter while it is converting it
        model.save_pretrained(folder, state_dict=weights, **options)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card; `report` writes ours
