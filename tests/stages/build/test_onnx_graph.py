"""onnx_graph: a graph that onnxruntime could not read, or onnxruntime-genai not feed, is told in one line."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from stages.build import onnx_graph
from tests.stages.built import settings
from tunepress.core.errors import InputError
from tunepress.inference.genai_config import GenaiConfig


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as raised:
        onnx_graph.check(GenaiConfig.read(folder))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def edit_graph(folder: Path, change: Callable[[onnx.GraphProto], None]) -> None:
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    change(model.graph)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def test_weights_that_are_cut_short_or_missing_are_found(folder: Path) -> None:
    data = folder / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    size = data.stat().st_size
    assert refused(folder).startswith(f"model.onnx.data: has {size} of at least {size + 1} bytes")
    data.unlink()
    assert refused(folder).startswith("model.onnx.data: not found")


def test_a_graph_that_is_missing_or_none_is_found(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no protobuf")
    assert refused(folder).startswith("model.onnx: not an ONNX graph (")
    (folder / "model.onnx").unlink()
    assert refused(folder) == "genai_config.json: names model.onnx, which is missing; build the model again"


@pytest.mark.parametrize(
    ("domain", "op_type", "name"), [("", "Frobnicate", "Frobnicate"), ("ai.elsewhere", "MatMulNBits", "ai.elsewhere.MatMulNBits")]
)
def test_an_operator_that_there_is_not_is_found(domain: str, op_type: str, name: str, folder: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        graph.node[-1].op_type, graph.node[-1].domain = op_type, domain

    edit_graph(folder, change)
    assert f"has no operator {name}; remove the option" in refused(folder)


def test_a_weight_of_another_type_is_found(folder: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        scales = next(tensor for tensor in graph.initializer if tensor.name.endswith("lm_head.MatMul.weight_scales"))
        scales.data_type = onnx.TensorProto.INT32

    edit_graph(folder, change)
    assert "these options give an invalid graph (" in refused(folder)


def test_names_that_are_not_the_graphs_are_found(folder: Path) -> None:
    settings(folder, lambda model: model["decoder"]["inputs"].update(input_ids="tokens"))
    assert "input_ids is tokens, and model.onnx has no such input" in refused(folder)
    settings(folder, lambda model: model["decoder"]["inputs"].update(input_ids="input_ids"))
    settings(folder, lambda model: model["decoder"]["outputs"].update(present_key_names="now.%d.key"))
    assert "present_key_names is now.%d.key, and model.onnx has no such output" in refused(folder)
    settings(folder, lambda model: model["decoder"]["outputs"].update(present_key_names="present.%d.key"))
    settings(folder, lambda model: model["decoder"]["inputs"].pop("attention_mask"))
    assert "does not name attention_mask, an input of model.onnx" in refused(folder)
