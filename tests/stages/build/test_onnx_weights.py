"""onnx_weights: bytes and bits of a graph's weights, against what a sheet of paper says of the tiny Phi-3."""

from pathlib import Path

import pytest

from stages.build import onnx_graph, onnx_weights
from stages.build.onnx_weights import Kind, Weights
from stages.build.stage import build
from tests.stages.recipes import recipe
from tunepress.config.build import Build

# conf/base_model/tiny.yaml: hidden 64, heads 4 of 16 (2 of them for keys and values), intermediate 128, 260 tokens, 2 layers
QKV, OUT, GATE, UP, DOWN, HEAD = 128 * 64, 64 * 64, 128 * 64, 128 * 64, 64 * 128, 260 * 64
ATTENTION, MLP = 2 * (QKV + OUT), 2 * (GATE + UP + DOWN)
NORMS = 5 * 64
CACHES = 2 * 1024 * 8  # cosines and sines of 1024 positions


def weights(chosen: Build, tiny_phi3: Path, folder: Path) -> Weights:
    build(chosen, tiny_phi3, folder)
    return onnx_weights.read(onnx_graph.load(folder / "model.onnx"))


def test_int4_in_blocks_of_32_takes_half_a_byte_and_a_float_for_32(tiny_phi3: Path, tmp_path: Path) -> None:
    actual = weights(recipe(block_size=32, is_symmetric=True), tiny_phi3, tmp_path / "onnx")
    assert actual.tensors == {
        ("embedding", Kind.plain): 260 * 64 * 4,
        ("head", Kind.quantized): HEAD // 2,
        ("head", Kind.scales): HEAD // 32 * 4,
        ("attention", Kind.quantized): ATTENTION // 2,
        ("attention", Kind.scales): ATTENTION // 32 * 4,
        ("mlp", Kind.quantized): MLP // 2,
        ("mlp", Kind.scales): MLP // 32 * 4,
        ("rest", Kind.plain): (NORMS + CACHES) * 4,
    }
    assert actual.quantized_weights == HEAD + ATTENTION + MLP
    assert actual.effective_bits_per_weight == 4 + 32 / 32
    assert onnx_weights.actual_recipe(actual) == {"block_size": 32, "accuracy_level": 4, "is_symmetric": True}


def test_zero_points_and_scales_of_half_a_float_are_counted(tiny_phi3: Path, tmp_path: Path) -> None:
    actual = weights(recipe("int4", "cuda", block_size=16, is_symmetric=False), tiny_phi3, tmp_path / "onnx")
    assert actual.tensors["mlp", Kind.zero_points] == MLP // 16 // 2
    assert actual.effective_bits_per_weight == 4 + 16 / 16 + 4 / 16
    assert onnx_weights.actual_recipe(actual) == {"block_size": 16, "accuracy_level": 0, "is_symmetric": False}


def test_layers_of_eight_bits_among_those_of_four_are_counted(tiny_phi3: Path, tmp_path: Path) -> None:
    actual = weights(recipe(algo_config="k_quant_mixed", block_size=32), tiny_phi3, tmp_path / "onnx")
    eight = HEAD + QKV + DOWN  # of the first of two layers
    every = HEAD + ATTENTION + MLP
    four = every - eight
    size = eight * (8 + 32 / 32 + 8 / 32) + four * (4 + 32 / 32 + 4 / 32)
    assert actual.effective_bits_per_weight == pytest.approx(size / every, abs=1e-4)


def test_full_precision_is_plain(tiny_phi3: Path, tmp_path: Path) -> None:
    actual = weights(recipe("fp16", "cuda"), tiny_phi3, tmp_path / "onnx")
    assert {kind for _, kind in actual.tensors} == {Kind.plain}
    assert actual.tensors["attention", Kind.plain] == ATTENTION * 2
    assert actual.effective_bits_per_weight is None
    assert onnx_weights.actual_recipe(actual) == {"block_size": None, "accuracy_level": None, "is_symmetric": None}


@pytest.mark.parametrize("options", [{}, {"use_qdq": True}, {"op_types_to_quantize": "MatMul/Gather"}], ids=str)
def test_every_byte_of_the_file_is_some_tensors(options: dict[str, object], tiny_phi3: Path, tmp_path: Path) -> None:
    actual = weights(recipe(block_size=32, extra_options=options), tiny_phi3, tmp_path / "onnx")
    file = (tmp_path / "onnx/model.onnx.data").stat().st_size
    assert sum(actual.tensors.values()) == pytest.approx(file, rel=0.02)  # tensors begin at multiples of 64 bytes or more
    assert actual.effective_bits_per_weight == pytest.approx(5, abs=0.01)


def test_values_that_differ_are_all_told() -> None:
    nodes = [{"block_size": size, "zero_points": size > 16} for size in (32, 16, 32)]
    actual = Weights({}, nodes, 0)
    assert onnx_weights.actual_recipe(actual) == {"block_size": [16, 32], "accuracy_level": 0, "is_symmetric": [False, True]}
