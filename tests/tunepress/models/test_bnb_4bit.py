"""bnb_4bit: dequantized weights are bit-identical to those with which bitsandbytes multiplies."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit

from tunepress.config.adapter import Adapter, Method
from tunepress.core.errors import InputError
from tunepress.models.bnb_4bit import FILE_NAME, Quantization, disable_repacking, quantized_weight_names
from tunepress.models.hf_model import load_model

KINDS = [
    Quantization(quant_type, double, compensated=False, dtype="float32")
    for quant_type in ("nf4", "fp4")
    for double in (True, False)
]


@pytest.fixture(params=KINDS, ids=[f"{kind.bnb_4bit_quant_type} {kind.bnb_4bit_use_double_quant}" for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> Quantization:
    quantization: Quantization = request.param
    return quantization


def adapter(method: Method, **changed: Any) -> Adapter:
    lora: dict[str, Any] = {"r": 4, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
    bnb: dict[str, Any] = {f"bnb_4bit_{name}": None for name in ("quant_type", "use_double_quant", "compute_dtype")}
    return Adapter(method, **({"init_lora_weights": True} | lora | bnb | changed))


def quantized(folder: Path, kind: Quantization, dtype: torch.dtype = torch.float32) -> Any:
    model = load_model(folder, dtype=dtype, quantization_config=kind.config(dtype))
    disable_repacking(model)
    return model


def layers(model: Any) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def round_all(model: Any, kind: Quantization) -> int:
    """Rounds every weight that training would hold in 4 bits; returns how many there are."""
    for name in quantized_weight_names(model):
        weight = model.get_parameter(name)
        weight.data = kind.round_trip(weight.data)
    return len(quantized_weight_names(model))


# the round trip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rounded_weights_are_those_that_training_multiplies_with(kind: Quantization, dtype: torch.dtype, tiny_phi3: Path) -> None:
    packed = layers(quantized(tiny_phi3, kind, dtype))
    model = load_model(tiny_phi3, dtype=dtype)
    before = {name: module.weight.clone() for name, module in layers(model).items()}
    assert round_all(model, kind) == 8
    rounded = layers(model)
    assert rounded.keys() == packed.keys()
    for name, module in rounded.items():
        weight = packed[name].weight
        if name == "lm_head":
            assert type(packed[name]) is torch.nn.Linear
            assert torch.equal(module.weight, weight)
            assert torch.equal(module.weight, before[name])
            continue
        assert isinstance(packed[name], Linear4bit)
        assert module.weight.dtype is dtype
        assert torch.equal(module.weight, dequantize_4bit(weight.data, weight.quant_state)), name
        assert not torch.equal(module.weight, before[name])


def test_a_product_with_the_identity_gives_the_rounded_weights(kind: Quantization, tiny_phi3: Path) -> None:
    model = load_model(tiny_phi3)
    round_all(model, kind)
    rounded = layers(model)
    for name, module in layers(quantized(tiny_phi3, kind)).items():
        identity = torch.eye(module.in_features, requires_grad=True)
        assert torch.equal(module.train()(identity).T, rounded[name].weight), name


def test_each_kind_of_rounding_is_another(tiny_phi3: Path) -> None:
    weights: list[torch.Tensor] = []
    for kind in KINDS:
        model = load_model(tiny_phi3)
        round_all(model, kind)
        weights.append(model.get_parameter("model.layers.0.mlp.down_proj.weight").detach())
    assert all(not torch.equal(weight, other) for number, weight in enumerate(weights) for other in weights[:number])


def test_only_linear_weights_are_rounded(tiny_phi3: Path) -> None:
    model, before = load_model(tiny_phi3), load_model(tiny_phi3).state_dict()
    round_all(model, KINDS[0])
    same = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert before.keys() - same == {f"{name}.weight" for name in layers(model) if name != "lm_head"}


def test_a_head_that_is_the_embedding_stays_too(tiny_phi3: Path) -> None:
    model = load_model(tiny_phi3)
    embedding = model.get_input_embeddings().weight
    model.get_output_embeddings().weight = embedding
    before = embedding.detach().clone()
    assert round_all(model, KINDS[0]) == 8
    assert torch.equal(embedding, before)


# as training holds it


def test_an_evaluation_changes_neither_the_weights_nor_the_gradients_of_what_follows(kind: Quantization, tiny_phi3: Path) -> None:
    layer = layers(quantized(tiny_phi3, kind))["model.layers.0.mlp.down_proj"]
    x = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(0))

    def learn() -> list[torch.Tensor]:
        states = x.clone().requires_grad_()
        out = layer.train()(states)
        out.square().sum().backward()
        assert states.grad is not None
        return [out.detach(), states.grad, layer.weight.data.view(torch.uint8).clone()]

    before = learn()
    with torch.inference_mode():
        torch.testing.assert_close(layer.eval()(x), before[0])
    assert all(torch.equal(old, new) for old, new in zip(before, learn(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_configuration_holds_and_stores_in_the_compute_type(kind: Quantization, dtype: torch.dtype) -> None:
    config = kind.config(dtype)
    assert config.load_in_4bit
    assert config.bnb_4bit_quant_type == kind.bnb_4bit_quant_type
    assert config.bnb_4bit_use_double_quant is kind.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype is config.bnb_4bit_quant_storage is dtype


# what is told of it


@pytest.mark.parametrize("method", [Method.lora, Method.rslora, Method.dora])
def test_a_method_on_float_weights_has_none(method: Method) -> None:
    assert Quantization.of(adapter(method), bf16=False) is None


@pytest.mark.parametrize("method", [Method.qlora, Method.qdora])
def test_a_quantized_method_has_nf4_and_double_quantization_by_default(method: Method) -> None:
    assert Quantization.of(adapter(method), bf16=False) == Quantization("nf4", True, compensated=False, dtype="float32")
    chosen = adapter(method, bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=False, init_lora_weights="loftq")
    assert Quantization.of(chosen, bf16=False) == Quantization("fp4", False, compensated=True, dtype="float32")


def test_it_is_written_beside_the_adapter_and_read_again(kind: Quantization, tmp_path: Path) -> None:
    assert Quantization.load(tmp_path) is None
    kind.save(tmp_path)
    assert Quantization.load(tmp_path) == kind


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"bnb_4bit_quant_type": "nf4", "other": 1}'])
def test_a_file_that_does_not_tell_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"quantization\.json: does not say .*; train again$") as refused:
        Quantization.load(tmp_path)
    assert "\n" not in str(refused.value)
