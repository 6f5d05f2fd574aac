"""Writes an adapter as a file of onnxruntime, `.onnx_adapter`: values for the inputs of a graph's branches.

Depending on the target, the builder merges several layers into one product or splits a layer into several, so a layer's factors
are fitted to the products of the graph that they are for.
"""

from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import onnx
import torch
from onnxruntime import AdapterFormat, OrtValue

from stages.build.adapters.graph import Product, add_branches, branched_products, find_products
from stages.build.adapters.lora import Factors
from tunepress.core.errors import InputError

JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
DTYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
}
VERSION = 1  # of adapter and model; onnxruntime writes it to the file and does not compare it


def add_adapter_inputs(adapter: Mapping[str, Factors], model: Path, path: Path) -> None:
    """Adds branches for an adapter to the graph of an ONNX file, and writes the adapter to its own file.

    Only the graph's file is rewritten: the file with the weights does not depend on the adapter.

    Raises:
        InputError: the adapter does not fit the graph.
    """
    proto = onnx.load(model, load_external_data=False)
    products = find_products(proto.graph)
    fitted = fit(adapter, products)
    add_branches(proto.graph, [products[name] for name in fitted])
    onnx.save(proto, model)
    write_file(fitted, products, path)


def write_adapter(adapter: Mapping[str, Factors], model: Path, path: Path) -> None:
    """Writes the file of another adapter for an ONNX file that has branches.

    Raises:
        InputError: the adapter does not fit the graph or its branches.
    """
    graph = onnx.load(model, load_external_data=False).graph
    fitted, branched = fit(adapter, find_products(graph)), branched_products(graph)
    if not branched:
        raise InputError(f"{model}: has no branches for adapters; build it with build.adapters=separate")
    if missing := sorted(fitted.keys() - branched.keys()):
        raise InputError(f"{model}: no branch at {missing[0]}; build it with an adapter that has the same target_modules or more")
    write_file(fitted, branched, path)


def fit(adapter: Mapping[str, Factors], products: Mapping[str, Product]) -> dict[str, Factors]:
    """The adapter's factors by product, for the products that it changes.

    Raises:
        InputError: the adapter changes a layer that is not a product of the graph, or has another shape.
    """
    by_product: dict[str, list[Factors]] = defaultdict(list)
    for layer, factors in adapter.items():
        for name, part in factors_by_product(layer, factors, products).items():
            by_product[name].append(part)
    for name, parts in by_product.items():
        expected = products[name].in_features, products[name].out_features
        for part in parts:
            if (actual := (part.a.shape[1], part.b.shape[0])) != expected:
                raise InputError(
                    f"the adapter is for another base model: {name} is {shape(expected)} here and {shape(actual)} there"
                )
    # a sum of products of two factors is one product of the concatenated factors
    return {
        name: Factors(torch.cat([part.a for part in parts]), torch.cat([part.b for part in parts], dim=1))
        for name, parts in by_product.items()
    }


def shape(features: tuple[int, int]) -> str:
    return f"{features[0]} -> {features[1]}"


def factors_by_product(layer: str, factors: Factors, products: Mapping[str, Product]) -> dict[str, Factors]:
    """A layer's factors for the product or products that compute the layer.

    Raises:
        InputError: the graph has no such product, or one of another shape.
    """
    if layer in products:
        return {layer: factors}
    block, _, leaf = layer.rpartition(".")
    for joined, parts in JOINED.items():
        if leaf == joined and all(f"{block}.{part}" in products for part in parts):
            return split(factors, {name: products[name] for name in (f"{block}.{part}" for part in parts)})
        if leaf in parts and f"{block}.{joined}" in products:
            name = f"{block}.{joined}"
            return {name: widen(layer, factors, parts.index(leaf), len(parts), products[name].out_features)}
    raise InputError(f"the adapter changes {layer}, which is not a product in the ONNX model; set build.adapters=merged")


def split(factors: Factors, products: Mapping[str, Product]) -> dict[str, Factors]:
    """Splits the factors of a layer that the builder has split into several products."""
    ends = list(accumulate(product.out_features for product in products.values()))
    rows = torch.tensor_split(factors.b, ends[:-1])
    return {name: Factors(factors.a, part) for name, part in zip(products, rows, strict=True)}


def widen(layer: str, factors: Factors, position: int, count: int, out_features: int) -> Factors:
    """Widens the factors of one of the layers that the builder has merged into one product; they are zero for the others.

    The first layer starts at 0; the others have the same width, as keys and values do.

    Raises:
        InputError: the layer is too wide for the product.
    """
    rows = len(factors.b)
    if rows * (count - 1 if position else 1) >= out_features:
        raise InputError(
            f"the adapter is for another base model: {layer} has {rows} outputs there, {out_features} with others here"
        )
    start = out_features - (count - position) * rows if position else 0
    return Factors(factors.a, torch.nn.functional.pad(factors.b, (0, 0, start, out_features - start - rows)))


def write_file(fitted: Mapping[str, Factors], products: Mapping[str, Product], path: Path) -> None:
    """Writes the values for the branches' inputs."""
    values = {}
    for name, factors in fitted.items():
        sides = factors.a.T, factors.b.T
        for input_name, side in zip(products[name].inputs, sides, strict=True):
            values[input_name] = ort_value(side, products[name].dtype)
    file = AdapterFormat()
    file.set_adapter_version(VERSION)
    file.set_model_version(VERSION)
    file.set_parameters(values)
    file.export_adapter(str(path))


def ort_value(tensor: torch.Tensor, dtype: int) -> OrtValue:
    """Converts a tensor to onnxruntime's type `dtype`, a key of DTYPES."""
    typed = tensor.to(DTYPES[dtype]).contiguous()
    array = typed.view(torch.int16) if typed.dtype is torch.bfloat16 else typed  # numpy has no bfloat16
    return OrtValue.ortvalue_from_numpy_with_onnx_type(array.numpy(), dtype)
