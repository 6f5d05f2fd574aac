"""Adds branches to an ONNX graph: beside a layer's product x W they compute x A B, with A and B as optional inputs of the graph.

An active adapter provides their values. The defaults are zeros of rank 1, so that without an adapter the model is the base
model. Rank 0 would work on a CPU and need no space, but DirectML rejects it (microsoft/onnxruntime issue 21483). The rank is not
part of the inputs' shapes, so adapters of different ranks can be used in turn.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import onnx
from onnx import helper

# The quantizer adds what follows MatMul: MatMulNBits, MatMul_Q4, MatMul_matmul_Q4.
PRODUCT = re.compile(r"(?P<place>/model/layers\.\d+/\w+/\w+)/MatMul\w*")
OPERATORS = ("MatMul", "MatMulNBits")


@dataclass(frozen=True)
class Product:
    """The product of a layer with its weight.

    Attributes:
        place: the part of the graph that contains it, such as /model/layers.0/attn/qkv_proj.
        dtype: number of its type in onnx.TensorProto.
    """

    place: str
    in_features: int
    out_features: int
    dtype: int

    @property
    def inputs(self) -> dict[str, list[int | str]]:
        """The shapes of the inputs A and B of its branch, by name."""
        name = self.place.strip("/").replace("/", ".")
        rank = f"{name}.rank"
        return {f"{name}.lora_A.weight": [self.in_features, rank], f"{name}.lora_B.weight": [rank, self.out_features]}


def find_products(graph: onnx.GraphProto) -> dict[str, Product]:
    """The products of all layers, by names such as model.layers.0.attn.qkv_proj."""
    values = {value.name: value.type.tensor_type for value in graph.value_info}
    products = {}
    for node in graph.node:
        if place := place_of(node):
            input_type, output_type = values[node.input[0]], values[node.output[0]]
            name = place.strip("/").replace("/", ".")
            products[name] = Product(place, width(input_type), width(output_type), output_type.elem_type)
    return products


def place_of(node: onnx.NodeProto) -> str | None:
    """The place of a layer's product; None for other nodes."""
    match = PRODUCT.fullmatch(node.name)
    return match["place"] if match and node.op_type in OPERATORS else None


def width(value: onnx.TypeProto.Tensor) -> int:
    """The last dimension of a value."""
    return int(value.shape.dim[-1].dim_value)


def branched_products(graph: onnx.GraphProto) -> dict[str, Product]:
    """The products that have a branch."""
    inputs = {value.name for value in graph.input}
    return {name: product for name, product in find_products(graph).items() if inputs.issuperset(product.inputs)}


def add_branches(graph: onnx.GraphProto, products: Iterable[Product]) -> None:
    by_place = {product.place: product for product in products}
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if product := by_place.get(place_of(node) or ""):
            output = node.output[0]
            node.output[0] = f"{output}/alone"
            add_value_info(graph, node.output[0], like=output)
            add_inputs(graph, product)
            nodes += branch(product, node.input[0], node.output[0], output)
    del graph.node[:]
    graph.node.extend(nodes)


def branch(product: Product, x: str, alone: str, total: str) -> list[onnx.NodeProto]:
    """The nodes of a branch.

    Args:
        product: the product that it belongs to.
        x: name of the input of both.
        alone: name of the product's own value.
        total: name of their sum, which the next nodes read.
    """
    a, b = product.inputs
    between, added = (f"{product.place}/{side}/MatMul/output_0" for side in ("lora_A", "lora_B"))
    return [
        helper.make_node("MatMul", [x, a], [between], f"{product.place}/lora_A/MatMul"),
        helper.make_node("MatMul", [between, b], [added], f"{product.place}/lora_B/MatMul"),
        helper.make_node("Add", [alone, added], [total], f"{product.place}/lora/Add"),
    ]


def add_inputs(graph: onnx.GraphProto, product: Product) -> None:
    """Adds the two inputs of a branch, with zeros as defaults."""
    for name, shape in product.inputs.items():
        graph.input.append(helper.make_tensor_value_info(name, product.dtype, shape))
        dims = [side if isinstance(side, int) else 1 for side in shape]
        zeros = bytes(math.prod(dims) * helper.tensor_dtype_to_np_dtype(product.dtype).itemsize)
        graph.initializer.append(helper.make_tensor(name, product.dtype, dims, zeros, raw=True))


def add_value_info(graph: onnx.GraphProto, name: str, like: str) -> None:
    """Declares a new value with the type and shape of another."""
    value_info = graph.value_info.add()
    value_info.CopyFrom(next(value for value in graph.value_info if value.name == like))
    value_info.name = name
