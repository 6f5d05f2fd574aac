"""A checkpoint quantized tensor by tensor gives the graph that the builder makes of the whole model."""

import re
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from stages.build.builder import Builder
from stages.build.quantize.checkpoint import SourceModel, drop_neutral_zero_points, write_checkpoint
from stages.build.quantize.layers import round_to_nearest
from stages.build.quantize.recipe import WeightRecipe
from tunepress.models.random_model import write_random_model

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,  # two of them stay in 4 bits under k_quant_mixed
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "mistral": {"sliding_window": None},
    "phi3": {"original_max_position_embeddings": 256, "sliding_window": 255},  # queries, keys and values in one matrix
    "qwen2": {"tie_word_embeddings": True},  # biases
    "qwen3": {"head_dim": 32},  # norms of queries and keys
}
RECIPES = [
    ("int4", "cpu", []),
    ("int4", "cpu", ["is_symmetric=false"]),
    ("int4", "cpu", ["algo_config=rtn"]),
    ("int4", "cpu", ["algo_config=k_quant_mixed"]),
    ("int8", "cpu", []),
    ("int4", "cuda", []),
    ("int4", "cuda", ["use_cuda_bf16=true"]),
    ("int4", "dml", ["algo_config=k_quant_mixed"]),  # three products in place of one
    ("int4", "webgpu", ["block_size=64"]),
]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    write_random_model({"model_type": request.param, **SHAPE, **MODELS[request.param]}, 0, folder)
    return folder


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
@pytest.mark.parametrize(("precision", "execution_provider", "extra_options"), RECIPES)
def test_the_graph_is_the_builders_own(
    model: Path, precision: str, execution_provider: str, extra_options: list[str], tmp_path: Path
) -> None:
    builder = Builder(precision, execution_provider, extra_options)
    builder.build(model, tmp_path / "own")
    source = SourceModel(model)
    recipe = WeightRecipe.of(precision, execution_provider, builder.options(model), source.config.num_hidden_layers)
    write_checkpoint(source, round_to_nearest(source, recipe), recipe.block_size, recipe.bits, tmp_path / "checkpoint")
    builder.build(tmp_path / "checkpoint", tmp_path / "tensorwise")
    drop_neutral_zero_points(tmp_path / "tensorwise")
    assert graph(tmp_path / "tensorwise") == graph(tmp_path / "own")
    assert (tmp_path / "tensorwise" / "genai_config.json").read_text() == (tmp_path / "own" / "genai_config.json").read_text()
