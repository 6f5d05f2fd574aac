"""The weights of an ONNX model: where their bytes go, and how they were quantized, as its graph says."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, helper

# Where a quantized operator has its weights, their scales and their zero points among its inputs.
QUANTIZED_INPUTS = {"MatMulNBits": (1, 2, 3), "GatherBlockQuantized": (0, 2, 3), "DequantizeLinear": (0, 1, 2)}

PARTS = {  # a tensor's name holds one of these; what else there is, such as norms, is the rest
    "embedding": ("embed_tokens",),
    "head": ("lm_head",),
    "attention": (".attn.", "_attn."),
    "mlp": (".mlp.", ".moe."),
}


class Kind(Enum):
    """What a tensor is to its operator."""

    quantized = "quantized"
    scales = "scales"
    zero_points = "zero_points"
    plain = "plain"


@dataclass(frozen=True)
class Weights:
    """The tensors of a graph.

    Attributes:
        tensors: bytes by part of the model and kind of tensor. A head that is also the embedding counts as the head.
        matmuls: the attributes of the products with quantized weights, in the order of the graph.
        quantized_weights: how many weights the quantized tensors stand for.
    """

    tensors: dict[tuple[str, Kind], int]
    matmuls: list[dict[str, Any]]
    quantized_weights: int

    def mb_by_part(self) -> dict[str, float]:
        """MB of 1,000,000 bytes of each part of the model."""
        return {part: mb(size for (one, _), size in self.tensors.items() if one == part) for part in (*PARTS, "rest")}

    def mb_by_kind(self) -> dict[str, float]:
        """MB of 1,000,000 bytes of each kind of tensor."""
        return {kind.value: mb(size for (_, one), size in self.tensors.items() if one is kind) for kind in Kind}

    @property
    def effective_bits_per_weight(self) -> float | None:
        """Bits that a quantized weight takes on disk, its share of scales and zero points included; None where there is none."""
        size = sum(size for (_, kind), size in self.tensors.items() if kind is not Kind.plain)
        return round(8 * size / self.quantized_weights, 4) if self.quantized_weights else None


def read(model: ModelProto) -> Weights:
    """Weighs the tensors of a graph, whose data need not be loaded."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    operators = [node for node in model.graph.node if node.op_type in QUANTIZED_INPUTS]
    kinds = {name: kind for node in operators for name, kind in quantized_inputs(node) if name in tensors}
    sizes: dict[tuple[str, Kind], int] = {}
    for name, tensor in tensors.items():
        key = part_of(name), kinds.get(name, Kind.plain)
        sizes[key] = sizes.get(key, 0) + byte_size(tensor)
    stand_for = {weights: count for node in operators for weights, count in stands_for(node, tensors)}
    matmuls = [attributes(node) for node in operators if node.op_type != "GatherBlockQuantized"]
    return Weights(sizes, matmuls, sum(stand_for.values()))


def quantized_inputs(node: NodeProto) -> list[tuple[str, Kind]]:
    """The names of an operator's quantized tensors, with what each is."""
    at = QUANTIZED_INPUTS[node.op_type]
    return [(node.input[place], kind) for place, kind in zip(at, Kind, strict=False) if place < len(node.input)]


def stands_for(node: NodeProto, tensors: dict[str, TensorProto]) -> list[tuple[str, int]]:
    """A quantized tensor, and the number of weights that it stands for; nothing where another operator made it."""
    name = node.input[QUANTIZED_INPUTS[node.op_type][0]]
    if name not in tensors:
        return []
    if node.op_type == "MatMulNBits":  # whose last blocks may hold more than there is
        found = attributes(node)
        return [(name, found["K"] * found["N"])]
    packed = 8 // attributes(node).get("bits", 4) if tensors[name].data_type == TensorProto.UINT8 else 1
    return [(name, math.prod(tensors[name].dims) * packed)]


def attributes(node: NodeProto) -> dict[str, Any]:
    """Attributes of an operator, and `zero_points`: whether it has any."""
    zero_points = QUANTIZED_INPUTS[node.op_type][2]
    given = len(node.input) > zero_points and bool(node.input[zero_points])
    return {one.name: helper.get_attribute_value(one) for one in node.attribute} | {"zero_points": given}


def part_of(name: str) -> str:
    """The part of the model that a tensor belongs to, by its name."""
    return next((part for part, marks in PARTS.items() if any(mark in name for mark in marks)), "rest")


def byte_size(tensor: TensorProto) -> int:
    """Bytes of a tensor, in the file beside the graph or in the graph."""
    beside = {entry.key: entry.value for entry in tensor.external_data}
    return int(beside["length"]) if beside else tensor.ByteSize()


def mb(sizes: Iterable[int]) -> float:
    """Their sum in MB of 1,000,000 bytes."""
    return round(sum(sizes) / 1e6, 2)


def found_recipe(weights: Weights) -> dict[str, Any]:
    """How the products were quantized: one value of each where all are alike, else all that there are; None without any."""
    return {
        "block_size": one_or_all(node["block_size"] for node in weights.matmuls),
        "accuracy_level": one_or_all(node.get("accuracy_level", 0) for node in weights.matmuls),
        "is_symmetric": one_or_all(not node["zero_points"] for node in weights.matmuls),
    }


def one_or_all(values: Iterable[Any]) -> Any:
    """The value that all share, all of them sorted, or None."""
    distinct = sorted(set(values))
    return distinct[0] if len(distinct) == 1 else distinct or None
