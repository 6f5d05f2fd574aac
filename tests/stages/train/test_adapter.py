"""adapter: what is put on a base model, with which first weights, and what is written of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from stages.train.adapter import fit_to_quantization, lora_config, lora_layers, outline, save, with_adapter
from tunepress.config.adapter import Adapter, Method
from tunepress.core.errors import InputError
from tunepress.models.bnb_4bit import Quantization
from tunepress.models.hf_model import load_model, read_tensor

INPUT = torch.tensor([[5, 80, 200, 17, 3, 99]])
MODULES = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}


def adapter(method: Method = Method.lora, **changed: Any) -> Adapter:
    inputs: dict[str, Any] = {"r": 4, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
    bnb: dict[str, Any] = {f"bnb_4bit_{name}": None for name in ("quant_type", "use_double_quant", "compute_dtype")}
    return Adapter(method, **({"init_lora_weights": True} | inputs | bnb | changed))


def base(folder: Path, chosen: Adapter) -> Any:
    quantization = Quantization.of(chosen, bf16=False)
    options = {"quantization_config": quantization.config(torch.float32)} if quantization else {}
    return load_model(folder, dtype=torch.float32, **options)


def adapted(folder: Path, chosen: Adapter, seed: int = 0) -> PeftModel:
    return with_adapter(base(folder, chosen), chosen, seed, folder)


def first_weights(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    actual: torch.Tensor = model.eval()(INPUT).logits
    return actual


# shapes


@pytest.mark.parametrize("method", [method for method in Method if method is not Method.none])
def test_the_outline_has_the_parameters_of_the_model_and_no_weights(method: Method, tiny_phi3: Path) -> None:
    chosen = adapter(method)
    shapes = outline(tiny_phi3, chosen)
    model = with_adapter(load_model(tiny_phi3), adapter(Method.dora if method.use_dora else Method.lora), 0, tiny_phi3)
    assert shapes.get_nb_trainable_parameters() == model.get_nb_trainable_parameters()
    assert all(parameter.is_meta for parameter in shapes.parameters())
    assert len(lora_layers(shapes)) == 8


def test_every_linear_layer_but_the_head_is_adapted(tiny_phi3: Path) -> None:
    names = {name.split(".")[-1] for name, module in outline(tiny_phi3, adapter()).named_modules() if hasattr(module, "lora_A")}
    assert names == MODULES


@pytest.mark.parametrize(("init", "r"), [("pissa", 64), ("olora", 64), ("loftq", 64), (True, 100), ("gaussian", 100)])
def test_a_rank_that_the_weights_have_is_accepted(init: Any, r: int, tiny_phi3: Path) -> None:
    method = Method.qlora if init == "loftq" else Method.lora
    outline(tiny_phi3, adapter(method, init_lora_weights=init, r=r))


def test_the_smallest_adapted_layer_limits_the_rank(tiny_phi3: Path) -> None:
    with pytest.raises(InputError, match=r"^adapter\.r: must be at most 64 with init_lora_weights=pissa and this model, got 65$"):
        outline(tiny_phi3, adapter(init_lora_weights="pissa", target_modules=["down_proj"], r=65))


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_embedding_is_adapted_by_lora_and_by_no_decomposition(init: str, tiny_phi3: Path) -> None:
    outline(tiny_phi3, adapter(target_modules=["embed_tokens", "o_proj"]))
    with pytest.raises(InputError, match=r"^adapter\.target_modules: .* needs linear layers, and one is an embedding$"):
        outline(tiny_phi3, adapter(target_modules=["embed_tokens", "o_proj"], init_lora_weights=init))


def test_names_are_compared_as_peft_compares_them(tiny_phi3: Path) -> None:
    single = outline(tiny_phi3, adapter(target_modules=["layers.1.mlp.down_proj"]))
    assert len(lora_layers(single)) == 1
    with pytest.raises(InputError, match="match nothing"):
        outline(tiny_phi3, adapter(target_modules=["1.mlp.down_pro"]))


def test_the_scale_is_that_of_the_method() -> None:
    assert lora_config(adapter(Method.rslora), True).use_rslora
    assert not lora_config(adapter(Method.qdora), True).use_rslora
    assert [method for method in Method if lora_config(adapter(method), True).use_dora] == [Method.dora, Method.qdora]


# first weights


@pytest.mark.parametrize(
    "chosen",
    [
        adapter(),
        adapter(init_lora_weights="gaussian"),
        adapter(init_lora_weights="orthogonal"),
        adapter(init_lora_weights="olora"),
        adapter(init_lora_weights="pissa"),
        adapter(init_lora_weights="pissa_niter_4"),
        adapter(Method.rslora, init_lora_weights="pissa"),
        adapter(Method.dora),
    ],
    ids=lambda chosen: f"{chosen.method.value} {chosen.init_lora_weights}",
)
def test_an_untrained_adapter_changes_nothing_and_only_it_learns(chosen: Adapter, tiny_phi3: Path) -> None:
    model = adapted(tiny_phi3, chosen)
    torch.testing.assert_close(logits(model), logits(load_model(tiny_phi3)), atol=1e-5, rtol=0)
    assert all(".lora_" in name for name in first_weights(model))


@pytest.mark.parametrize("init", [True, "gaussian", "orthogonal", "pissa_niter_1", "loftq"])
def test_first_weights_depend_on_the_seed_alone(init: Any, tiny_phi3: Path) -> None:
    chosen = adapter(Method.qlora if init == "loftq" else Method.lora, init_lora_weights=init)
    actual = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        actual.append(first_weights(adapted(tiny_phi3, chosen, seed)))
    assert all(torch.equal(tensor, actual[1][name]) for name, tensor in actual[0].items())
    assert any(not torch.equal(tensor, actual[2][name]) for name, tensor in actual[0].items())


# loftq


def lost(folder: Path, model: PeftModel) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What quantization took of each adapted weight, and what the adapter gives back."""
    from bitsandbytes.functional import dequantize_4bit

    actual = {}
    for name, layer in model.get_base_model().named_modules():
        if hasattr(layer, "lora_A"):
            packed = layer.base_layer.weight
            taken = read_tensor(folder, f"{name}.weight") - dequantize_4bit(packed.data, packed.quant_state)
            actual[name] = taken, layer.get_delta_weight("default").detach()
    return actual


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("method", [Method.qlora, Method.qdora])
@pytest.mark.parametrize(("r", "lora_alpha"), [(4, 32), (16, 2)])
def test_loftq_gives_back_what_a_product_of_that_rank_can(
    quant_type: str, method: Method, r: int, lora_alpha: int, tiny_phi3: Path
) -> None:
    chosen = adapter(method, init_lora_weights="loftq", bnb_4bit_quant_type=quant_type, r=r, lora_alpha=lora_alpha)
    actual = lost(tiny_phi3, adapted(tiny_phi3, chosen))
    assert len(actual) == 8
    for taken, inputs in actual.values():
        best = torch.linalg.svdvals(taken)[r:].norm()
        assert best <= (taken - inputs).norm() * 1.0001
        assert (taken - inputs).norm() < min(best * 1.02, taken.norm())


def test_loftq_brings_the_model_nearer_to_the_unquantized_one(tiny_phi3: Path) -> None:
    expected = logits(load_model(tiny_phi3))
    fitted = adapted(tiny_phi3, adapter(Method.qlora, init_lora_weights="loftq", r=32, lora_alpha=8))
    plain = adapted(tiny_phi3, adapter(Method.qlora, r=32, lora_alpha=8))
    assert (logits(fitted) - expected).norm() < 0.8 * (logits(plain) - expected).norm()


def test_loftq_takes_the_scale_of_rslora_too(tiny_phi3: Path) -> None:
    chosen = adapter(Method.qlora, init_lora_weights="loftq")
    model = adapted(tiny_phi3, chosen)
    for layer in lora_layers(model):
        layer.scaling["default"] = 32 / 4**0.5
    fit_to_quantization(model, tiny_phi3)
    assert all((taken - inputs).norm() < taken.norm() for taken, inputs in lost(tiny_phi3, model).values())


def test_loftq_leaves_the_head_which_has_lost_nothing(tiny_phi3: Path) -> None:
    chosen = adapter(Method.qlora, init_lora_weights="loftq", target_modules=["lm_head", "o_proj"])
    model = adapted(tiny_phi3, chosen)
    weights = first_weights(model)
    assert not any(tensor.any() for name, tensor in weights.items() if "lm_head.lora_B" in name)
    assert all(tensor.any() for name, tensor in weights.items() if "o_proj.lora_B" in name)


# what is written


def disturb(model: PeftModel) -> None:
    """As if it were trained."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                weight.add_(torch.randn_like(weight) * 0.02)


@pytest.mark.parametrize("init", ["olora", "pissa", "pissa_niter_4"])
@pytest.mark.parametrize("method", [Method.lora, Method.rslora])
def test_an_adapter_taken_out_of_the_base_is_written_for_the_whole_base(
    init: str, method: Method, tiny_phi3: Path, tmp_path: Path
) -> None:
    model = adapted(tiny_phi3, adapter(method, init_lora_weights=init))
    model.save_pretrained(tmp_path / "initial")
    disturb(model)
    save(model, None, tmp_path / "initial", tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["init_lora_weights"]) == (8, True)
    loaded = PeftModel.from_pretrained(load_model(tiny_phi3), tmp_path / "adapter")
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-5, rtol=0)
    assert (logits(model) - logits(load_model(tiny_phi3))).abs().max() > 0.05


@pytest.mark.parametrize("method", [Method.lora, Method.dora])
def test_any_other_adapter_is_written_as_it_is(method: Method, tiny_phi3: Path, tmp_path: Path) -> None:
    model = adapted(tiny_phi3, adapter(method, target_modules=["o_proj", "down_proj"]))
    disturb(model)
    save(model, None, None, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))["target_modules"] == ["down_proj", "o_proj"]
    assert len(load_file(tmp_path / "adapter_model.safetensors")) == 4 * (3 if method is Method.dora else 2)
    loaded = PeftModel.from_pretrained(load_model(tiny_phi3), tmp_path)
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-6, rtol=0)
