"""Adapters beside one base model: each gives the logits of its own merged model, in any order, and none those of the base."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime_genai as og
import pytest
import torch
from omegaconf import OmegaConf
from onnxruntime import AdapterFormat, InferenceSession
from peft import PeftModel

from stages.build.adapters.export import add_adapter_inputs, fit, write_adapter
from stages.build.adapters.graph import Product, branched_products, find_products
from stages.build.adapters.lora import Factors, load
from stages.build.stage import build
from tests.conftest import ROOT
from tests.stages.merging import disturbed_model
from tests.stages.random_adapter import write_random_adapter
from tests.stages.recipes import recipe
from tests.tunepress.models.twins import SHAPE, TWINS
from tunepress.core.errors import InputError
from tunepress.models.hf_model import load_model
from tunepress.models.random_model import write_random_model

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA = {"model_type": "llama", "max_position_embeddings": 256} | SMALL
ARCHITECTURES: dict[str, Any] = {
    "fused": OmegaConf.to_container(OmegaConf.load(ROOT / "conf/base_model/tiny.yaml").architecture),
    "apart": LLAMA,
    "biased": LLAMA | {"model_type": "qwen2"},
}
TOKENS = [5 + (number * 37) % 250 for number in range(24)]
INT4: dict[str, Any] = {"block_size": 32, "accuracy_level": 4}

Logits = npt.NDArray[np.float32]


@dataclass
class Case:
    """A base model, its fp32 ONNX model with and without branches, and adapters of different rank and scale."""

    base: Path
    plain: Path
    model: Path
    adapters: dict[str, Path]

    def loaded(self) -> tuple[og.Model, og.Adapters]:
        model = og.Model(str(self.model))
        adapters = og.Adapters(model)
        for name in self.adapters:
            adapters.load(str(self.model / f"{name}.onnx_adapter"), name)
        return model, adapters


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    case = Case(folder / "base", folder / "plain", folder / "model", {})
    case.base.mkdir()
    write_random_model(ARCHITECTURES[request.param], 0, case.base)
    case.adapters["first"] = write_random_adapter(case.base, folder / "first", seed=1, r=4, lora_alpha=8)
    case.adapters["second"] = write_random_adapter(case.base, folder / "second", seed=2, r=7, lora_alpha=9, use_rslora=True)
    for path in (case.plain, case.model):
        build(recipe("fp32"), case.base, path)
    add_adapter_inputs(load(case.adapters["first"]), case.model / "model.onnx", case.model / "first.onnx_adapter")
    write_adapter(load(case.adapters["second"]), case.model / "model.onnx", case.model / "second.onnx_adapter")
    return case


def logits(model: og.Model, adapters: og.Adapters | None = None, name: str = "") -> Logits:
    """Of TOKENS, with one of the adapters active or none."""
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, max_length=len(TOKENS) + 1)
    generator = og.Generator(model, parameters)
    if adapters:
        generator.set_active_adapter(adapters, name)
    generator.append_tokens(TOKENS)
    return np.array(generator.get_output("logits")[0], dtype=np.float32)


@torch.inference_mode()
def of_torch(base: Path, adapter: Path | None = None) -> Logits:
    """The logits of TOKENS by torch, with the adapter merged."""
    model: Any = load_model(base)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    actual: Logits = model.eval()(torch.tensor([TOKENS])).logits[0].numpy()
    return actual


def test_an_active_adapter_gives_the_logits_of_its_merged_model(case: Case) -> None:
    model, adapters = case.loaded()
    base = of_torch(case.base)
    for name, adapter in case.adapters.items():
        expected = of_torch(case.base, adapter)
        assert np.abs(expected - base).max() > 0.1
        np.testing.assert_allclose(logits(model, adapters, name), expected, atol=1e-4)


def test_without_an_adapter_the_model_is_the_base_model_to_the_bit(case: Case) -> None:
    model, _ = case.loaded()
    actual = logits(model)
    np.testing.assert_array_equal(actual, logits(og.Model(str(case.plain))))
    np.testing.assert_allclose(actual, of_torch(case.base), atol=1e-4)


def test_adapters_take_turns_and_leave_nothing_behind(case: Case) -> None:
    model, adapters = case.loaded()
    alone = [logits(model, adapters, name) for name in case.adapters]
    assert np.abs(alone[0] - alone[1]).max() > 0.1
    for number, name in [*enumerate(case.adapters)] * 2:
        np.testing.assert_array_equal(logits(model, adapters, name), alone[number])
        logits(model)
    adapters.unload("first")
    np.testing.assert_array_equal(logits(model, adapters, "second"), alone[1])


def test_the_weights_file_is_the_base_models_and_the_graph_the_same_for_every_adapter(case: Case, tmp_path: Path) -> None:
    assert (case.model / "model.onnx.data").read_bytes() == (case.plain / "model.onnx.data").read_bytes()
    (tmp_path / "model.onnx").write_bytes((case.plain / "model.onnx").read_bytes())
    add_adapter_inputs(load(case.adapters["second"]), tmp_path / "model.onnx", tmp_path / "again.onnx_adapter")
    assert (tmp_path / "model.onnx").read_bytes() == (case.model / "model.onnx").read_bytes()
    assert (tmp_path / "again.onnx_adapter").read_bytes() == (case.model / "second.onnx_adapter").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", TWINS)
def test_an_adapter_of_any_supported_architecture_can_be_separate(name: str, tmp_path: Path) -> None:
    base, model = tmp_path / "base", tmp_path / "model"
    base.mkdir()
    disturbed_model(base, SHAPE | TWINS[name])
    adapter = write_random_adapter(base, tmp_path / "adapter", r=4, lora_alpha=8)
    build(recipe("fp32"), base, model)
    add_adapter_inputs(load(adapter), model / "model.onnx", model / "adapter.onnx_adapter")
    loaded = Case(base, tmp_path, model, {"adapter": adapter}).loaded()
    np.testing.assert_allclose(logits(loaded[0]), of_torch(base), atol=1e-4)
    np.testing.assert_allclose(logits(*loaded, "adapter"), of_torch(base, adapter), atol=1e-4)


@pytest.mark.parametrize(
    "modules", [["q_proj", "v_proj"], ["k_proj"], ["up_proj"], ["o_proj", "down_proj"]], ids=lambda modules: "+".join(modules)
)
def test_an_adapter_may_stand_on_some_of_the_layers(modules: list[str], tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write_random_model(LLAMA, 0, tmp_path / "base")
    adapter = write_random_adapter(tmp_path / "base", tmp_path / "adapter", target_modules=modules, r=8, lora_alpha=64)
    build(recipe("fp32"), tmp_path / "base", tmp_path / "model")
    add_adapter_inputs(load(adapter), tmp_path / "model/model.onnx", tmp_path / "model/adapter.onnx_adapter")
    actual = Case(tmp_path / "base", tmp_path, tmp_path / "model", {"adapter": adapter})
    expected = of_torch(actual.base, adapter)
    assert np.abs(expected - of_torch(actual.base)).max() > 0.01
    np.testing.assert_allclose(logits(*actual.loaded(), "adapter"), expected, atol=1e-4)


@pytest.mark.parametrize("provider", ["cuda", "dml", "webgpu"])
def test_the_half_precision_graph_of_every_other_target_gives_the_same_answers(provider: str, case: Case, tmp_path: Path) -> None:
    build(recipe("fp16", provider), case.base, tmp_path)
    add_adapter_inputs(load(case.adapters["first"]), tmp_path / "model.onnx", tmp_path / "first.onnx_adapter")
    config = og.Config(str(tmp_path))
    config.clear_providers()  # the CPU computes it, as it is the one that every machine has
    model = og.Model(config)
    adapters = og.Adapters(model)
    adapters.load(str(tmp_path / "first.onnx_adapter"), "first")
    np.testing.assert_allclose(logits(model), of_torch(case.base), atol=0.01)
    np.testing.assert_allclose(logits(model, adapters, "first"), of_torch(case.base, case.adapters["first"]), atol=0.01)


@pytest.mark.parametrize("provider", ["cpu", "cuda", "dml", "webgpu"])
def test_an_int4_graph_of_every_target_loads_and_has_an_input_of_its_own_type_for_each_value(
    provider: str, case: Case, tmp_path: Path
) -> None:
    build(recipe("int4", provider, **INT4), case.base, tmp_path)
    weights = (tmp_path / "model.onnx.data").read_bytes()
    add_adapter_inputs(load(case.adapters["first"]), tmp_path / "model.onnx", tmp_path / "adapter.onnx_adapter")
    assert InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph
    inputs = {value.name: value.type.tensor_type for value in graph.input if "lora" in value.name}
    values = AdapterFormat.read_adapter(str(tmp_path / "adapter.onnx_adapter")).get_parameters()
    assert values.keys() == inputs.keys()
    io_type = onnx.TensorProto.FLOAT if provider == "cpu" else onnx.TensorProto.FLOAT16
    for name, value in values.items():
        assert value.element_type() == inputs[name].elem_type == io_type
        for size, dimension in zip(value.shape(), inputs[name].shape.dim, strict=True):
            assert dimension.dim_param or dimension.dim_value == size
    assert branched_products(graph).keys() == find_products(graph).keys()
    assert (tmp_path / "model.onnx.data").read_bytes() == weights


def test_an_int4_model_without_an_adapter_is_the_int4_base_model_to_the_bit_and_with_one_it_is_not(
    case: Case, tmp_path: Path
) -> None:
    for name in ("plain", "model"):
        build(recipe("int4", **INT4), case.base, tmp_path / name)
    add_adapter_inputs(load(case.adapters["first"]), tmp_path / "model/model.onnx", tmp_path / "model/first.onnx_adapter")
    actual = Case(case.base, tmp_path / "plain", tmp_path / "model", {"first": case.adapters["first"]})
    model, adapters = actual.loaded()
    np.testing.assert_array_equal(logits(model), logits(og.Model(str(actual.plain))))
    expected = of_torch(case.base, case.adapters["first"])
    with_adapter, without = (
        np.corrcoef(got.ravel(), expected.ravel())[0, 1] for got in (logits(model, adapters, "first"), logits(model))
    )
    assert with_adapter > 0.95
    assert without < 0.9


def test_an_adapter_of_another_base_model_is_refused_with_the_first_layer_that_differs(case: Case, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write_random_model(LLAMA | {"hidden_size": 32}, 0, tmp_path / "base")
    adapter = load(write_random_adapter(tmp_path / "base", tmp_path / "adapter", target_modules=["o_proj", "down_proj"]))
    before = (case.model / "model.onnx").read_bytes()
    for write in (add_adapter_inputs, write_adapter):
        with pytest.raises(
            InputError, match=r"for another base model: model\.layers\.0\.\w+\.\w+_proj is \d+ -> 64 here and \d+ -> 32"
        ):
            write(adapter, case.model / "model.onnx", tmp_path / "adapter.onnx_adapter")
    assert not (tmp_path / "adapter.onnx_adapter").exists()
    assert (case.model / "model.onnx").read_bytes() == before


def test_an_adapter_on_more_layers_than_the_model_has_branches_for_is_refused(case: Case, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes((case.plain / "model.onnx").read_bytes())
    with pytest.raises(InputError, match=r"has no branches for adapters; build it with build\.adapters=separate"):
        write_adapter(load(case.adapters["first"]), model, tmp_path / "second.onnx_adapter")
    some = load(write_random_adapter(case.base, tmp_path / "some", target_modules=["o_proj"]))
    add_adapter_inputs(some, model, tmp_path / "some.onnx_adapter")
    with pytest.raises(InputError, match=r"no branch at model\.layers\.0\..*; build it with an adapter"):
        write_adapter(load(case.adapters["first"]), model, tmp_path / "second.onnx_adapter")
    assert not (tmp_path / "second.onnx_adapter").exists()


def product(place: str, out_features: int) -> Product:
    return Product(f"/model/layers.0/{place}", 8, out_features, onnx.TensorProto.FLOAT)


def factors(out_features: int, rank: int = 2) -> Factors:
    return Factors(torch.randn(rank, 8), torch.randn(out_features, rank))


def test_a_layer_that_the_builder_has_cut_gives_each_part_its_rows() -> None:
    layer = factors(16 + 4 + 4)
    parts = {
        f"model.layers.0.attn.{name}": product(f"attn/{name}", size)
        for name, size in (("q_proj", 16), ("k_proj", 4), ("v_proj", 4))
    }
    actual = fit({"model.layers.0.attn.qkv_proj": layer}, parts)
    torch.testing.assert_close(torch.cat([part.b @ part.a for part in actual.values()]), layer.b @ layer.a)
    assert [len(part.b) for part in actual.values()] == [16, 4, 4]


def test_layers_that_the_builder_has_joined_keep_to_their_rows() -> None:
    layers = {name: factors(size, rank) for name, size, rank in (("q_proj", 16, 1), ("k_proj", 4, 2), ("v_proj", 4, 3))}
    joined = {"model.layers.0.attn.qkv_proj": product("attn/qkv_proj", 24)}
    actual = fit({f"model.layers.0.attn.{name}": part for name, part in layers.items()}, joined)["model.layers.0.attn.qkv_proj"]
    torch.testing.assert_close(actual.b @ actual.a, torch.cat([part.b @ part.a for part in layers.values()]))
    assert actual.a.shape == (1 + 2 + 3, 8)


def test_a_layer_that_is_no_product_of_the_graph_is_refused() -> None:
    with pytest.raises(InputError, match=r"changes model\.layers\.0\.mlp\.router, which is not a product in the ONNX model"):
        fit({"model.layers.0.mlp.router": factors(8)}, {"model.layers.0.mlp.up_proj": product("mlp/up_proj", 8)})
    with pytest.raises(InputError, match="is for another base model"):
        fit({"model.layers.0.attn.v_proj": factors(16)}, {"model.layers.0.attn.qkv_proj": product("attn/qkv_proj", 24)})


def test_the_model_needs_nothing_more_than_its_own_configuration(case: Case) -> None:
    config = json.loads((case.model / "genai_config.json").read_text(encoding="utf-8"))
    assert config == json.loads((case.plain / "genai_config.json").read_text(encoding="utf-8"))
