"""Which recipes are rounded before the builder sees the model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.build.builder import Builder
from stages.build.quantize.layers import quantize_with_gptq, round_to_nearest, unsupported_reason
from stages.build.quantize.offloaded_model import OffloadedModel
from stages.build.quantize.recipe import WeightRecipe
from tunepress.core.errors import InputError
from tunepress.models.hf_model import load_model

ROWS = [[5, 6, 7, 8, 9, number] for number in range(10, 60)]


@pytest.fixture
def source(tiny_phi3: Path) -> OffloadedModel:
    return OffloadedModel(tiny_phi3)


@pytest.mark.parametrize(
    ("precision", "options", "block_size", "message"),
    [
        ("fp32", {}, 32, "build.precision=fp32 does not quantize"),
        ("int4", {"use_qdq": True}, 32, "build.extra_options.use_qdq needs the builder's own rounding"),
        ("int4", {"matmulnbits_weights_prepacked": 1}, 32, "build.extra_options.matmulnbits_weights_prepacked needs"),
        ("int4", {"nodes_to_exclude": ["/model/layers.0/attn/o_proj/MatMul"]}, 32, "build.nodes_to_exclude names more than"),
        ("int4", {}, 48, "build.block_size=48 does not divide the 64 columns of model.layers.0.self_attn.o_proj"),
    ],
)
def test_a_recipe_that_only_the_builder_can_round_says_why(
    source: OffloadedModel, precision: str, options: dict[str, Any], block_size: int, message: str
) -> None:
    actual = unsupported_reason(precision, options, block_size, source)
    assert actual and actual.startswith(message)


@pytest.mark.parametrize("options", [{}, {"nodes_to_exclude": ["/lm_head/MatMul"]}, {"matmulnbits_weights_prepacked": 0}])
def test_nothing_is_in_the_way_of_int4_and_int8(source: OffloadedModel, options: dict[str, Any]) -> None:
    assert unsupported_reason("int4", options, 32, source) is None
    assert unsupported_reason("int8", options, 32, source) is None


def test_gptq_rounds_the_same_matrices_to_the_same_shapes(source: OffloadedModel) -> None:
    recipe = WeightRecipe.of("int4", "cpu", Builder("int4", "cpu", []).options(source.folder), len(source.layers))
    for by_rows, plain in zip(quantize_with_gptq(source, recipe, ROWS), round_to_nearest(source, recipe), strict=True):
        assert by_rows.keys() == plain.keys()
        for module, matrix in by_rows.items():
            assert matrix.qweight.shape == plain[module].qweight.shape
            assert matrix.scales.shape == plain[module].scales.shape
            assert matrix.scales.dtype == plain[module].scales.dtype == torch.float32
            assert matrix.bits == plain[module].bits == 4


def test_gptq_gives_a_layer_the_bits_that_the_recipe_gives_it(source: OffloadedModel) -> None:
    options = Builder("int4", "cpu", ["algo_config=k_quant", "matmul_mixed_precision=mixed_layers:int8"]).options(source.folder)
    recipe = WeightRecipe.of("int4", "cpu", options, len(source.layers))
    first = next(quantize_with_gptq(source, recipe, ROWS))
    bits = {module.rpartition(".")[2]: matrix.bits for module, matrix in first.items()}
    assert bits == {"q_proj": 8, "k_proj": 8, "v_proj": 8, "o_proj": 4, "gate_proj": 4, "up_proj": 4, "down_proj": 8}


@pytest.mark.parametrize("way", ["gptq", "nearest"])
@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (
            1e6,
            torch.float16,
            r"contains 1e\+06, above the maximum of float16 \(65504\); set build.extra_options=\{use_cuda_bf16: true\} \(CUDA\)",
        ),
        (-1e6, torch.float16, r"contains 1e\+06, above the maximum of float16"),
        (float("nan"), torch.float32, r"contains nan; .* lower train.learning_rate"),
        (float("-inf"), torch.bfloat16, r"contains inf; .* lower train.learning_rate"),
    ],
)
def test_a_weight_that_the_type_of_the_scales_cannot_hold_is_refused_by_name(
    way: str, value: float, dtype: torch.dtype, message: str, tiny_phi3: Path, tmp_path: Path
) -> None:
    model = load_model(tiny_phi3)
    model.get_submodule("model.layers.1.mlp.down_proj").weight.data[3, 5] = value
    model.save_pretrained(tmp_path)
    source, recipe = (
        OffloadedModel(tmp_path),
        WeightRecipe("default", 4, 32, symmetric=True, dtype=dtype, packed=True, upgraded={}),
    )
    with pytest.raises(InputError, match=rf"model\.layers\.1\.mlp\.down_proj\.weight {message}"):
        list(quantize_with_gptq(source, recipe, ROWS) if way == "gptq" else round_to_nearest(source, recipe))
