"""Branches of an ONNX graph: beside a layer's product x W runs x A B, with A and B as optional inputs of the graph.

An adapter that is active gives them values. Their own are zeros of rank 1, so that without an adapter the model is the base
model. Rank 0 would do on a CPU and take no room, but DirectML refuses it (microsoft/onnxruntime issue 21483). The rank is no
part of the inputs' shapes, so adapters of different rank can take turns.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import onnx
from onnx import helper

# What stands behind MatMul is the quantizer's: MatMulNBits, MatMul_Q4, MatMul_matmul_Q4.
PRODUCT = re.compile(r"(?P<place>/model/layers\.\d+/\w+/\w+)/MatMul\w*")
OPERATORS = ("MatMul", "MatMulNBits")


@dataclass(frozen=True)
class Product:
    """A layer's product with its weight.

    Attributes:
        place: the part of the graph that it lies in, such as /model/layers.0/attn/qkv_proj.
        dtype: number of its type in onnx.TensorProto.
    """

    place: str
    in_features: int
    out_features: int
    dtype: int

    @property
    def inputs(self) -> dict[str, list[int | str]]:
        """The inputs for A and B of its branch, by name their shapes."""
        name = self.place.strip("/").replace("/", ".")
        rank = f"{name}.rank"
        return {f"{name}.lora_A.weight": [self.in_features, rank], f"{name}.lora_B.weight": [rank, self.out_features]}


def products(graph: onnx.GraphProto) -> dict[str, Product]:
    """The products of all layers, by names such as model.layers.0.attn.qkv_proj."""
    values = {value.name: value.type.tensor_type for value in graph.value_info}
    found = {}
    for node in graph.node:
        if place := place_of(node):
            given, made = values[node.input[0]], values[node.output[0]]
            found[place.strip("/").replace("/", ".")] = Product(place, width(given), width(made), made.elem_type)
    return found


def place_of(node: onnx.NodeProto) -> str | None:
    """The place of a layer's product, None for other nodes."""
    named = PRODUCT.fullmatch(node.name)
    return named["place"] if named and node.op_type in OPERATORS else None


def width(value: onnx.TypeProto.Tensor) -> int:
    """The last dimension of a value."""
    return int(value.shape.dim[-1].dim_value)


def branched(graph: onnx.GraphProto) -> dict[str, Product]:
    """Those of the products that have a branch."""
    inputs = {value.name for value in graph.input}
    return {name: product for name, product in products(graph).items() if inputs.issuperset(product.inputs)}


def add(graph: onnx.GraphProto, chosen: Iterable[Product]) -> None:
    """Gives products of a graph their branches."""
    by_place = {product.place: product for product in chosen}
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if product := by_place.get(place_of(node) or ""):
            made = node.output[0]
            node.output[0] = f"{made}/alone"
            describe(graph, node.output[0], like=made)
            add_inputs(graph, product)
            nodes += branch(product, node.input[0], node.output[0], made)
    del graph.node[:]
    graph.node.extend(nodes)


def branch(product: Product, given: str, alone: str, made: str) -> list[onnx.NodeProto]:
    """The nodes of a branch.

    Args:
        product: which it belongs to.
        given: name of the value that is multiplied.
        alone: of the product's own value.
        made: of the value that the layers behind it read.
    """
    a, b = product.inputs
    between, added = (f"{product.place}/{side}/MatMul/output_0" for side in ("lora_A", "lora_B"))
    return [
        helper.make_node("MatMul", [given, a], [between], f"{product.place}/lora_A/MatMul"),
        helper.make_node("MatMul", [between, b], [added], f"{product.place}/lora_B/MatMul"),
        helper.make_node("Add", [alone, added], [made], f"{product.place}/lora/Add"),
    ]


def add_inputs(graph: onnx.GraphProto, product: Product) -> None:
    """The two inputs of a branch, with zeros for where they are not given."""
    for name, shape in product.inputs.items():
        graph.input.append(helper.make_tensor_value_info(name, product.dtype, shape))
        dims = [side if isinstance(side, int) else 1 for side in shape]
        zeros = bytes(math.prod(dims) * helper.tensor_dtype_to_np_dtype(product.dtype).itemsize)
        graph.initializer.append(helper.make_tensor(name, product.dtype, dims, zeros, raw=True))


def describe(graph: onnx.GraphProto, name: str, like: str) -> None:
    """Gives a new value the type and shape of another."""
    described = graph.value_info.add()
    described.CopyFrom(next(value for value in graph.value_info if value.name == like))
    described.name = name
