"""Reads the size of the weights of an ONNX model and how they were quantized from its graph."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, helper

# The positions of the weights, scales and zero points among the inputs of a quantized operator.
QUANTIZED_INPUTS = {"MatMulNBits": (1, 2, 3), "GatherBlockQuantized": (0, 2, 3), "DequantizeLinear": (0, 1, 2)}

PARTS = {  # a tensor's name contains one of these; all others, such as norms, are the rest
    "embedding": ("embed_tokens",),
    "head": ("lm_head",),
    "attention": (".attn.", "_attn."),
    "mlp": (".mlp.", ".moe."),
}


class Kind(Enum):
    """The role of a tensor for its operator."""

    quantized = "quantized"
    scales = "scales"
    zero_points = "zero_points"
    plain = "plain"


@dataclass(frozen=True)
class Weights:
    """The tensors of a graph.

    Attributes:
        tensors: bytes by part of the model and kind of tensor. A head that is also the embedding counts as the head.
        matmuls: attributes of the products with quantized weights, in the order of the graph.
        quantized_weights: number of weights in the quantized tensors.
    """

    tensors: dict[tuple[str, Kind], int]
    matmuls: list[dict[str, Any]]
    quantized_weights: int

    def mb_by_part(self) -> dict[str, float]:
        """MB of 1,000,000 bytes of each part of the model."""
        return {part: mb(size for (key, _), size in self.tensors.items() if key == part) for part in (*PARTS, "rest")}

    def mb_by_kind(self) -> dict[str, float]:
        """MB of 1,000,000 bytes of each kind of tensor."""
        return {kind.value: mb(size for (_, key), size in self.tensors.items() if key is kind) for kind in Kind}

    @property
    def effective_bits_per_weight(self) -> float | None:
        """Bits of a quantized weight on disk, including its share of scales and zero points; None without quantized weights."""
        size = sum(size for (_, kind), size in self.tensors.items() if kind is not Kind.plain)
        return round(8 * size / self.quantized_weights, 4) if self.quantized_weights else None


def read(model: ModelProto) -> Weights:
    """Reads the sizes of a graph's tensors; their data need not be loaded."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    operators = [node for node in model.graph.node if node.op_type in QUANTIZED_INPUTS]
    kinds = {name: kind for node in operators for name, kind in quantized_inputs(node) if name in tensors}
    sizes: dict[tuple[str, Kind], int] = {}
    for name, tensor in tensors.items():
        key = part_of(name), kinds.get(name, Kind.plain)
        sizes[key] = sizes.get(key, 0) + byte_size(tensor)
    counts = {name: count for node in operators for name, count in weight_count(node, tensors)}
    matmuls = [attributes(node) for node in operators if node.op_type != "GatherBlockQuantized"]
    return Weights(sizes, matmuls, sum(counts.values()))


def quantized_inputs(node: NodeProto) -> list[tuple[str, Kind]]:
    """The names and kinds of an operator's quantized tensors."""
    positions = QUANTIZED_INPUTS[node.op_type]
    return [(node.input[position], kind) for position, kind in zip(positions, Kind, strict=False) if position < len(node.input)]


def weight_count(node: NodeProto, tensors: dict[str, TensorProto]) -> list[tuple[str, int]]:
    """A quantized tensor and its number of weights; empty if another operator computes it."""
    name = node.input[QUANTIZED_INPUTS[node.op_type][0]]
    if name not in tensors:
        return []
    if node.op_type == "MatMulNBits":  # whose last blocks may be padded
        shape = attributes(node)
        return [(name, shape["K"] * shape["N"])]
    packed = 8 // attributes(node).get("bits", 4) if tensors[name].data_type == TensorProto.UINT8 else 1
    return [(name, math.prod(tensors[name].dims) * packed)]


def attributes(node: NodeProto) -> dict[str, Any]:
    """The attributes of an operator, and `zero_points`: whether it has any."""
    position = QUANTIZED_INPUTS[node.op_type][2]
    zero_points = len(node.input) > position and bool(node.input[position])
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return values | {"zero_points": zero_points}


def part_of(name: str) -> str:
    """The part of the model that a tensor belongs to, by its name."""
    return next((part for part, patterns in PARTS.items() if any(pattern in name for pattern in patterns)), "rest")


def byte_size(tensor: TensorProto) -> int:
    """Bytes of a tensor, in the graph or in the file beside it."""
    external = {entry.key: entry.value for entry in tensor.external_data}
    return int(external["length"]) if external else tensor.ByteSize()


def mb(sizes: Iterable[int]) -> float:
    """The sum in MB of 1,000,000 bytes."""
    return round(sum(sizes) / 1e6, 2)


def actual_recipe(weights: Weights) -> dict[str, Any]:
    """How the products were quantized: the value that all share, otherwise all values; None without any."""
    return {
        "block_size": one_or_all(node["block_size"] for node in weights.matmuls),
        "accuracy_level": one_or_all(node.get("accuracy_level", 0) for node in weights.matmuls),
        "is_symmetric": one_or_all(not node["zero_points"] for node in weights.matmuls),
    }


def one_or_all(values: Iterable[Any]) -> Any:
    distinct = sorted(set(values))
    return distinct[0] if len(distinct) == 1 else distinct or None
