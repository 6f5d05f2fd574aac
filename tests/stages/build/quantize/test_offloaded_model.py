"""A model quantized layer by layer gives the graph that the builder makes of the whole model."""

import re
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from stages.build.builder import Builder
from stages.build.quantize.layers import round_to_nearest
from stages.build.quantize.offloaded_model import OffloadedModel, drop_neutral_zero_points
from stages.build.quantize.recipe import WeightRecipe
from tests.stages.merging import disturbed_model
from tests.tunepress.models.twins import SHAPE as TWIN
from tests.tunepress.models.twins import TWINS

SHAPE = TWIN | {"num_hidden_layers": 4}  # two of them stay in 4 bits under k_quant_mixed
MODELS: dict[str, dict[str, Any]] = TWINS | {
    "granite hybrid": TWINS["granite hybrid"] | {"layer_types": ["attention"] * 4},
    "smollm3": TWINS["smollm3"] | {"no_rope_layers": [1, 0, 0, 1]},
    "llama, tied": {"model_type": "llama", "tie_word_embeddings": True},
    "llama, biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "qwen2, tied": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3, wide heads": {"model_type": "qwen3", "head_dim": 64},
}
RECIPES = [  # of every model
    ("int4", "cpu", ["algo_config=k_quant_mixed"]),
    ("int4", "cuda", ["is_symmetric=false"]),
]
MORE_RECIPES = [  # of those whose products have the most kinds
    ("int4", "cpu", []),
    ("int4", "cpu", ["algo_config=rtn"]),
    ("int8", "cpu", []),
    ("int4", "cuda", ["use_cuda_bf16=true"]),
    ("int4", "dml", ["algo_config=k_quant_mixed"]),  # three products in place of one
    ("int4", "webgpu", ["block_size=64"]),
]
CASES = [(name, *recipe) for name in MODELS for recipe in RECIPES]
CASES += [(name, *recipe) for name in ("phi3", "qwen2, tied", "granite hybrid") for recipe in MORE_RECIPES]


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disturbed_model(tmp_path_factory.mktemp("model"), SHAPE | MODELS[request.param])


def graph(folder: Path) -> list[Any]:
    """The nodes of a model with the constants that they read; names of quantized ones, which differ by the way, left out."""
    read = onnx.load(folder / "model.onnx").graph
    constants = {constant.name: numpy_helper.to_array(constant) for constant in read.initializer}

    def without_way(name: str) -> str:
        return re.sub(r"MatMul(NBits|_Q[48])", "MatMul", name)

    def described(node: onnx.NodeProto, name: str) -> Any:
        if name not in constants:
            return without_way(name)
        values = constants[name]
        quantized = node.op_type in ("MatMulNBits", "GatherBlockQuantized", "Reshape")
        return ("" if quantized else name, str(values.dtype), values.size if quantized else values.shape, values.tobytes())

    nodes = [
        (
            node.op_type,
            node.domain,
            [described(node, name) for name in node.input],
            [without_way(name) for name in node.output],
            sorted(str(attribute) for attribute in node.attribute),
        )
        for node in read.node
    ]
    return sorted(nodes, key=lambda node: node[3])


@pytest.mark.slow
@pytest.mark.parametrize(("model", "precision", "execution_provider", "extra_options"), CASES, indirect=["model"])
def test_the_graph_is_the_builders_own(
    model: Path, precision: str, execution_provider: str, extra_options: list[str], tmp_path: Path
) -> None:
    builder = Builder(precision, execution_provider, extra_options)
    builder.build(model, tmp_path / "own")
    offloaded = OffloadedModel(model)
    recipe = WeightRecipe.of(precision, execution_provider, builder.options(model), len(offloaded.layers))
    for layer, quantized in zip(offloaded.layers, round_to_nearest(offloaded, recipe), strict=True):
        offloaded.replace(layer, quantized)
    builder.build(model, tmp_path / "by layer", offloaded.complete())
    drop_neutral_zero_points(tmp_path / "by layer")
    assert graph(tmp_path / "by layer") == graph(tmp_path / "own")
    assert (tmp_path / "by layer" / "genai_config.json").read_text() == (tmp_path / "own" / "genai_config.json").read_text()
