"""fused_linear: the products and gradients of peft's own LoRA layer, where these are all there is; elsewhere peft's own layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from safetensors.torch import load_file

from stages.train import fused_linear
from stages.train.adapter import lora_config, lora_layers, save, with_adapter
from stages.train.fused_linear import FusedLinear
from tunepress.config.adapter import Adapter, Method
from tunepress.models.hf_model import load_model

TOKENS = torch.tensor([[5, 80, 200, 17, 3, 99]])


def adapter(method: Method = Method.lora, **changed: Any) -> Adapter:
    values: dict[str, Any] = {"r": 4, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
    bnb: dict[str, Any] = {f"bnb_4bit_{name}": None for name in ("quant_type", "use_double_quant", "compute_dtype")}
    return Adapter(method, **({"init_lora_weights": True} | values | bnb | changed))


def layer(bias: bool = False, rank: int = 3, base: type[torch.nn.Linear] = torch.nn.Linear, **options: Any) -> FusedLinear:
    """A frozen layer from 7 to 5 features with an adapter that has learned something."""
    torch.manual_seed(0)
    config = LoraConfig(r=rank, lora_alpha=5, **options)
    made = FusedLinear(base(7, 5, bias=bias), "default", config=config, r=rank, lora_alpha=5)
    made.base_layer.requires_grad_(False)
    for weight in made.lora_B.parameters():
        torch.nn.init.normal_(weight)
    return made


def gradients(made: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of the input and of all that learns."""
    x = x.clone().requires_grad_()
    for weight in made.parameters():
        weight.grad = None
    y = made(x)
    (y * torch.arange(y.numel()).view_as(y).cos()).sum().backward()
    return [y, *(weight.grad for weight in (x, *made.parameters()) if weight.grad is not None)]


@contextmanager
def pefts_own() -> Iterator[None]:
    """Within this, layers do what peft's do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FusedLinear, "forward", Linear.forward)
        yield


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of the inputs that the fused operation has been given."""
    values: list[torch.Size] = []
    apply = fused_linear._LinearWithLora.apply

    def seen(x: torch.Tensor, *rest: Any) -> Any:
        values.append(x.shape)
        return apply(x, *rest)

    monkeypatch.setattr(fused_linear._LinearWithLora, "apply", seen)
    return values


# the same numbers


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(4, 7), (7,), (1, 1, 7), (2, 3, 7), (0, 7)])
def test_gradients_are_those_of_the_function(shape: tuple[int, ...], bias: bool) -> None:
    made = layer(bias).double()
    a, b = made.lora_A["default"].weight, made.lora_B["default"].weight
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def function(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return fused_linear._LinearWithLora.apply(x, made.base_layer.weight, made.base_layer.bias, a, b, 1.7)

    assert torch.autograd.gradcheck(function, (x, a, b))


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(4, 7), (7,), (1, 1, 7), (2, 3, 7), (0, 7)])
def test_output_and_gradients_are_pefts(shape: tuple[int, ...], bias: bool, rslora: bool, fused: list[torch.Size]) -> None:
    made, x = layer(bias, use_rslora=rslora), torch.randn(shape)
    actual = gradients(made, x)
    assert fused == [shape]
    with pefts_own():
        expected = gradients(made, x)
    assert len(fused) == 1 and len(actual) == len(expected) == 4
    torch.testing.assert_close(actual, expected)


def test_an_input_of_any_layout_will_do() -> None:
    made, x = layer(), torch.randn(7, 3, 2).transpose(0, 2)
    torch.testing.assert_close(gradients(made, x), gradients(made, x.contiguous()))


def test_an_input_that_learns_nothing_gets_no_gradient() -> None:
    made = layer()
    made(torch.randn(2, 7)).sum().backward()
    assert all(weight.grad is not None for weight in (*made.lora_A.parameters(), *made.lora_B.parameters()))
    assert made.base_layer.weight.grad is None


@pytest.mark.parametrize("learns", ["lora_A", "lora_B"])
def test_one_half_of_the_adapter_may_learn_alone(learns: str) -> None:
    made, x = layer(), torch.randn(2, 7)
    made.requires_grad_(False).get_submodule(learns).requires_grad_(True)
    actual = gradients(made, x)
    with pefts_own():
        torch.testing.assert_close(actual, gradients(made, x))
    assert len(actual) == 3


@pytest.mark.parametrize("learned", [torch.float32, torch.bfloat16])
def test_under_autocast_it_rounds_as_peft_does(learned: torch.dtype, fused: list[torch.Size]) -> None:
    made, x = layer(True).to(torch.bfloat16), torch.randn(6, 7)
    for half in (made.lora_A, made.lora_B):
        half.to(learned)
    with torch.autocast("cpu", torch.bfloat16):
        actual = gradients(made, x)
        assert fused == [(6, 7)]
        with pefts_own():
            expected = gradients(made, x)
    assert [tensor.dtype for tensor in actual] == [tensor.dtype for tensor in expected]
    for value, other in zip(actual, expected, strict=True):
        assert (value - other).norm() < 0.02 * other.norm()


# the whole model


def trained(folder: Path, checkpointing: bool = False, **changed: Any) -> tuple[PeftModel, torch.Tensor]:
    """A model whose adapter has a gradient, and its loss."""
    chosen = adapter(**changed)
    model = with_adapter(load_model(folder, dtype=torch.float32), chosen, 0, folder).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(1)
    for learned in (half for layer in lora_layers(model) for half in layer.lora_B.parameters()):
        torch.nn.init.normal_(learned, std=0.1)
    loss = model(TOKENS, labels=TOKENS, use_cache=False).loss
    loss.backward()
    return model, loss


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", [Method.lora, Method.rslora])
def test_a_model_learns_what_pefts_would(method: Method, checkpointing: bool, tiny_phi3: Path, fused: list[torch.Size]) -> None:
    model, loss = trained(tiny_phi3, checkpointing, method=method)
    assert len(fused) == 8 * (2 if checkpointing else 1)
    with pefts_own():
        expected, expected_loss = trained(tiny_phi3, method=method)
    torch.testing.assert_close(loss, expected_loss)
    for (name, value), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(value.grad, other.grad, msg=name)


def test_the_adapters_files_are_pefts(tiny_phi3: Path, tmp_path: Path) -> None:
    chosen = adapter()
    own = lora_config(chosen, True)
    own._custom_modules = None
    torch.manual_seed(0)
    save(get_peft_model(load_model(tiny_phi3), own), None, None, tmp_path / "peft")
    save(with_adapter(load_model(tiny_phi3), chosen, 0, tiny_phi3), None, None, tmp_path / "ours")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "peft" / name).read_bytes()
    assert len(load_file(tmp_path / "ours/adapter_model.safetensors")) == 16


# what it takes


@pytest.mark.parametrize("method", [method for method in Method if method is not Method.none and not method.brought])
def test_only_lora_on_float_weights_is_fused(method: Method, tiny_phi3: Path, fused: list[torch.Size]) -> None:
    from tunepress.models.bnb_4bit import Quantization

    chosen = adapter(method)
    quantization = Quantization.of(chosen, bf16=False)
    options = {"quantization_config": quantization.config(torch.float32)} if quantization else {}
    model = with_adapter(load_model(tiny_phi3, dtype=torch.float32, **options), chosen, 0, tiny_phi3)
    model(TOKENS)
    assert len(fused) == (8 if method in (Method.lora, Method.rslora) else 0)
    kinds = {type(value).__name__ for value in lora_layers(model)}
    assert kinds == ({"Linear4bit"} if method.quantized else {"FusedLinear"})


def test_an_embedding_is_left_to_peft(tiny_phi3: Path, fused: list[torch.Size]) -> None:
    trained(tiny_phi3, target_modules=["embed_tokens", "o_proj"])
    assert len(fused) == 2


@pytest.mark.parametrize("bias", [False, True])
def test_dropout_drops_what_pefts_does(bias: bool, fused: list[torch.Size]) -> None:
    made, x = layer(bias=bias, lora_dropout=0.5), torch.randn(2, 6, 7)

    def seeded(y: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return made(y)

    seeded.parameters = made.parameters  # type: ignore[attr-defined]
    actual = gradients(seeded, x)
    assert len(fused) == 1
    with pefts_own():
        torch.testing.assert_close(actual, gradients(seeded, x))
    made.eval()
    without = gradients(made, x)
    assert (without[0] - actual[0]).abs().max() > 0.01
    with pefts_own():
        torch.testing.assert_close(without, gradients(made, x))


def test_the_input_of_dropout_needs_no_gradient(fused: list[torch.Size]) -> None:
    made = layer(lora_dropout=0.5)
    made(torch.ones(2, 7)).sum().backward()
    assert len(fused) == 1
    assert all(weight.grad is not None for weight in (made.lora_A["default"].weight, made.lora_B["default"].weight))


class Subclass(torch.nn.Linear):
    """Whatever it does is not known here."""


def left(made: FusedLinear, x: torch.Tensor | None = None, **options: Any) -> None:
    """Runs a layer that is to be left to peft, and compares."""
    values = torch.ones(2, 7) if x is None else x
    actual = made(values, **options)
    with pefts_own():
        assert torch.equal(actual, made(values, **options))


def test_what_is_more_than_two_products_is_left_to_peft(fused: list[torch.Size]) -> None:
    left(layer(base=Subclass))
    left(layer(bias=True, lora_bias=True))
    left(layer(use_dora=True))
    left(layer(), adapter_names=["default", "__base__"])
    two_types = layer()
    two_types.base_layer.to(torch.bfloat16)
    left(two_types, torch.ones(2, 7, dtype=torch.bfloat16))
    learning = layer()
    learning.base_layer.requires_grad_(True)
    left(learning)
    merged = layer()
    merged.merge()
    left(merged)
    off = layer()
    off.enable_adapters(False)
    left(off)
    second = layer()
    second.update_layer("second", 2, 4, config=LoraConfig(r=2, init_lora_weights=False))
    second.set_adapter(["default", "second"])
    left(second)
    assert not fused
    second.set_adapter("second")
    second(torch.ones(2, 7))
    assert len(fused) == 1


def test_a_compiler_is_shown_pefts_own_operations(fused: list[torch.Size]) -> None:
    made, x = layer(), torch.randn(2, 7)
    actual = gradients(torch.compile(made, backend="aot_eager", fullgraph=True), x)
    assert not fused
    torch.testing.assert_close(actual, gradients(made, x))


def test_a_layer_that_the_active_adapter_has_no_part_in_is_left_to_peft(fused: list[torch.Size]) -> None:
    made = layer()
    made._active_adapter = "elsewhere"  # as peft sets it in every layer, when an adapter of other layers is activated
    left(made)
    assert torch.equal(made(torch.ones(2, 7)), made.base_layer(torch.ones(2, 7)))
    assert not fused


def test_a_bias_that_learns_is_left_to_peft(fused: list[torch.Size]) -> None:
    made, x = layer(bias=True), torch.randn(4, 7)
    made.base_layer.bias.requires_grad_(True)
    assert len(gradients(made, x)) == 5
    assert not fused


def test_factors_of_two_types_are_left_to_peft(fused: list[torch.Size]) -> None:
    mixed = layer()
    with torch.autocast("cpu", torch.bfloat16):  # and the frozen weights are in float32
        left(mixed)
    mixed.lora_A.to(torch.bfloat16)
    mixed.lora_B.to(torch.bfloat16)
    left(mixed)
    assert not fused


def test_a_product_of_peft_and_of_ours_can_be_differentiated_once() -> None:
    made, x = layer(), torch.randn(2, 7, requires_grad=True)
    (gradient,) = torch.autograd.grad(made(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
