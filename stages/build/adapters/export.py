"""An adapter as a file of onnxruntime, `.onnx_adapter`: values for the inputs of a graph's branches.

The builder makes one product of several layers or several of one, as suits the target, so a layer's factors are fitted to the
products of the very graph that they are for.
"""

from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import onnx
import torch
from onnxruntime import AdapterFormat, OrtValue

from stages.build.adapters import graph as adapter_graph
from stages.build.adapters.graph import Product
from stages.build.adapters.lora import Factors
from tunepress.core.errors import InputError

JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
DTYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
}
VERSION = 1  # of adapter and model, which onnxruntime writes into the file and does not compare


def add_adapter_inputs(adapter: Mapping[str, Factors], model: Path, path: Path) -> None:
    """Gives the graph of an ONNX file branches for an adapter, and writes the adapter's own file.

    Only the graph's file is rewritten: where the weights lie, nothing depends on the adapter.

    Raises:
        InputError: the adapter does not fit the graph.
    """
    proto = onnx.load(model, load_external_data=False)
    there = adapter_graph.products(proto.graph)
    fitted = fit(adapter, there)
    adapter_graph.add(proto.graph, [there[name] for name in fitted])
    onnx.save(proto, model)
    write(fitted, there, path)


def write_adapter(adapter: Mapping[str, Factors], model: Path, path: Path) -> None:
    """Writes the file of another adapter for an ONNX file that has branches.

    Raises:
        InputError: the adapter does not fit the graph, or not its branches.
    """
    graph = onnx.load(model, load_external_data=False).graph
    fitted, there = fit(adapter, adapter_graph.products(graph)), adapter_graph.branched(graph)
    if not there:
        raise InputError(f"{model}: has no branches for adapters; build it with build.adapters=separate")
    if missing := sorted(fitted.keys() - there.keys()):
        raise InputError(f"{model}: no branch at {missing[0]}; build it with an adapter that has the same target_modules or more")
    write(fitted, there, path)


def fit(adapter: Mapping[str, Factors], products: Mapping[str, Product]) -> dict[str, Factors]:
    """An adapter's factors by product, for those products that it changes.

    Raises:
        InputError: it stands on a layer that is no product of the graph, or has another shape there.
    """
    placed: dict[str, list[Factors]] = defaultdict(list)
    for layer, factors in adapter.items():
        for name, part in places(layer, factors, products).items():
            placed[name].append(part)
    for name, parts in placed.items():
        wanted = products[name].in_features, products[name].out_features
        for part in parts:
            if (found := (part.a.shape[1], part.b.shape[0])) != wanted:
                raise InputError(
                    f"the adapter is for another base model: {name} is {shape(wanted)} here and {shape(found)} there"
                )
    # a sum of products of two factors is one product of factors that stand side by side
    return {
        name: Factors(torch.cat([part.a for part in parts]), torch.cat([part.b for part in parts], dim=1))
        for name, parts in placed.items()
    }


def shape(features: tuple[int, int]) -> str:
    """What a product makes of what."""
    return f"{features[0]} -> {features[1]}"


def places(layer: str, factors: Factors, products: Mapping[str, Product]) -> dict[str, Factors]:
    """A layer's factors in the product, or in the several ones, that compute the layer.

    Raises:
        InputError: the graph has none, or of another shape.
    """
    if layer in products:
        return {layer: factors}
    block, _, leaf = layer.rpartition(".")
    for joined, parts in JOINED.items():
        if leaf == joined and all(f"{block}.{part}" in products for part in parts):
            return cut(factors, {name: products[name] for name in (f"{block}.{part}" for part in parts)})
        if leaf in parts and f"{block}.{joined}" in products:
            name = f"{block}.{joined}"
            return {name: widened(layer, factors, parts.index(leaf), len(parts), products[name].out_features)}
    raise InputError(f"the adapter changes {layer}, which is no product in the ONNX model; set build.adapters=merged")


def cut(factors: Factors, products: Mapping[str, Product]) -> dict[str, Factors]:
    """Factors of a layer of which the builder has made several products."""
    ends = list(accumulate(product.out_features for product in products.values()))
    rows = torch.tensor_split(factors.b, ends[:-1])
    return {name: Factors(factors.a, part) for name, part in zip(products, rows, strict=True)}


def widened(layer: str, factors: Factors, position: int, count: int, out_features: int) -> Factors:
    """Factors of one of the layers of which the builder has made one product: zero for the others.

    The first layer begins at 0; those behind it are equally wide, as keys and values are.

    Raises:
        InputError: there is no room for it.
    """
    rows = len(factors.b)
    if rows * (count - 1 if position else 1) >= out_features:
        raise InputError(
            f"the adapter is for another base model: {layer} has {rows} outputs there, {out_features} with others here"
        )
    start = out_features - (count - position) * rows if position else 0
    return Factors(factors.a, torch.nn.functional.pad(factors.b, (0, 0, start, out_features - start - rows)))


def write(fitted: Mapping[str, Factors], products: Mapping[str, Product], path: Path) -> None:
    """Writes the values of the branches' inputs."""
    values = {}
    for name, factors in fitted.items():
        sides = factors.a.T, factors.b.T
        for input_name, side in zip(products[name].inputs, sides, strict=True):
            values[input_name] = ort_value(side, products[name].dtype)
    written = AdapterFormat()
    written.set_adapter_version(VERSION)
    written.set_model_version(VERSION)
    written.set_parameters(values)
    written.export_adapter(str(path))


def ort_value(tensor: torch.Tensor, dtype: int) -> OrtValue:
    """A tensor in one of DTYPES, as onnxruntime holds it."""
    typed = tensor.to(DTYPES[dtype]).contiguous()
    array = typed.view(torch.int16) if typed.dtype is torch.bfloat16 else typed  # which numpy does not know
    return OrtValue.ortvalue_from_numpy_with_onnx_type(array.numpy(), dtype)
