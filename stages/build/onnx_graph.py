"""Checks the graph of a built model, without the hardware that it is for."""

import re
from contextlib import chdir
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from tunepress.core.errors import InputError, one_line
from tunepress.inference.genai_config import FILE_NAME, GenaiConfig

DOMAINS = {"", "com.microsoft"}


def check(config: GenaiConfig) -> onnx.ModelProto:
    """Checks that onnxruntime can load the graph of a model folder, and that onnxruntime-genai can provide its inputs.

    Returns:
        The graph, without the data of its weights.

    Raises:
        InputError: a file is missing or truncated, an operator is unknown, or types or names do not match.
    """
    model = load(config.graph)
    check_data(model, config.graph)
    check_operators(model, config.graph)
    check_types(model, config.graph)
    check_names(model, config)
    return model


def load(path: Path) -> onnx.ModelProto:
    """Loads a graph without the data of its weights.

    Raises:
        InputError: there is none.
    """
    try:
        return onnx.load(path, load_external_data=False)
    except FileNotFoundError as error:
        raise InputError(f"{FILE_NAME}: names {path.name}, which is missing; build the model again") from error
    except Exception as error:  # protobuf's own DecodeError, which does not derive from ValueError
        raise InputError(f"{path.name}: not an ONNX graph ({one_line(error)}); build the model again") from error


def check_data(model: onnx.ModelProto, path: Path) -> None:
    """Raises InputError if the file with the weights is missing or truncated."""
    ends: dict[str, int] = {}
    for tensor in model.graph.initializer:
        external = {entry.key: entry.value for entry in tensor.external_data}
        if external:
            end = int(external.get("offset", 0)) + int(external["length"])
            ends[external["location"]] = max(end, ends.get(external["location"], 0))
    for name, end in ends.items():
        file = path.with_name(name)
        size = file.stat().st_size if file.exists() else None
        if size is None or size < end:
            problem = "not found" if size is None else f"has {size} of at least {end} bytes"
            raise InputError(f"{name}: {problem}, and the weights of {path.name} are in it; build the model again")


def check_operators(model: onnx.ModelProto, path: Path) -> None:
    """Raises InputError if an operator is not in the providers' domains, or unknown to the installed onnxruntime."""
    known = {(schema.domain, schema.name) for schema in native.get_all_operator_schema()}
    for node in nodes(model.graph):
        if node.domain not in DOMAINS or (node.domain, node.op_type) not in known:
            name = f"{node.domain}.{node.op_type}".lstrip(".")
            problem = f"onnxruntime {onnxruntime.__version__} has no operator {name}"
            raise InputError(f"{path.name}: {problem}; remove the option that adds it")


def nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes of a graph and its subgraphs."""
    all_nodes = []
    for node in graph.node:
        all_nodes.append(node)
        for attribute in node.attribute:
            all_nodes += [inner for subgraph in (attribute.g, *attribute.graphs) for inner in nodes(subgraph)]
    return all_nodes


def check_types(model: onnx.ModelProto, path: Path) -> None:
    """Raises InputError if onnx finds the graph malformed, or onnxruntime finds types and shapes that do not match."""
    try:
        with chdir(path.parent):  # where onnx looks for the weights of a graph that it has not loaded itself
            onnx.checker.check_model(with_domains(model))
        resolve(path)
    except Exception as error:  # from two native libraries with their own classes
        raise InputError(f"{path.name}: these options give an invalid graph ({one_line(error)})") from error


def resolve(path: Path) -> None:
    """Lets onnxruntime load a graph and infer its types and shapes, but not read its weights or look for kernels."""
    options = native.SessionOptions()
    options.log_severity_level = 3  # it warns about shapes that the builder writes wrongly, and corrects them
    native.InferenceSession(options, str(path), True, False)


def with_domains(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which onnxruntime's own operators have its domain: some are in the standard domain, where onnx looks for them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in nodes(copy.graph):
        if not node.domain and not onnx.defs.has(node.op_type):
            node.domain = "com.microsoft"
    return copy


def check_names(model: onnx.ModelProto, config: GenaiConfig) -> None:
    """Raises InputError if genai_config.json names inputs or outputs that do not exist, or does not name an input."""
    for side, values in (("inputs", model.graph.input), ("outputs", model.graph.output)):
        names = {value.name for value in values}
        patterns = {key: pattern_of(name) for key, name in config.decoder[side].items()}
        for key, pattern in patterns.items():
            if not any(pattern.fullmatch(name) for name in names):
                configured: Any = config.decoder[side][key]
                problem = f"{config.graph.name} has no such {side[:-1]}"
                raise InputError(f"{FILE_NAME}: {key} is {configured}, and {problem}; build the model again")
        names -= {tensor.name for tensor in model.graph.initializer}  # inputs with a default, which adapters override
        unnamed = [name for name in sorted(names) if not any(pattern.fullmatch(name) for pattern in patterns.values())]
        if unnamed and side == "inputs":
            raise InputError(f"{FILE_NAME}: does not name {unnamed[0]}, an input of {config.graph.name}; build the model again")


def pattern_of(name: str) -> re.Pattern[str]:
    """The names that a name in genai_config.json stands for; %d is the number of a layer."""
    return re.compile(re.escape(name).replace("%d", r"\d+"))
