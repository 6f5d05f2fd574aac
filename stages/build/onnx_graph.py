"""The graph of a built model: a check of what can be told without the hardware that it is for."""

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
    """Looks whether onnxruntime can read the graph of a model folder, and onnxruntime-genai feed it.

    Returns:
        the graph, without the data of its weights.

    Raises:
        InputError: a file is missing or cut short, an operator is unknown, types or names do not go together.
    """
    model = load(config.graph)
    check_data(model, config.graph)
    check_operators(model, config.graph)
    check_types(model, config.graph)
    check_names(model, config)
    return model


def load(path: Path) -> onnx.ModelProto:
    """The graph of a file, without the data of its weights.

    Raises:
        InputError: there is none.
    """
    try:
        return onnx.load(path, load_external_data=False)
    except FileNotFoundError as error:
        raise InputError(f"{FILE_NAME}: names {path.name}, which is not there; build the model again") from error
    except Exception as error:  # protobuf's own DecodeError, which is no ValueError
        raise InputError(f"{path.name}: no ONNX graph ({one_line(error)}); build the model again") from error


def check_data(model: onnx.ModelProto, path: Path) -> None:
    """Raises InputError where the file with the weights is missing or ends too early."""
    ends: dict[str, int] = {}
    for tensor in model.graph.initializer:
        beside = {entry.key: entry.value for entry in tensor.external_data}
        if beside:
            end = int(beside.get("offset", 0)) + int(beside["length"])
            ends[beside["location"]] = max(end, ends.get(beside["location"], 0))
    for name, end in ends.items():
        file = path.with_name(name)
        there = file.stat().st_size if file.exists() else None
        if there is None or there < end:
            found = "not found" if there is None else f"{there} bytes of at least {end}"
            raise InputError(f"{name}: {found}, and {path.name} has its weights there; build the model again")


def check_operators(model: onnx.ModelProto, path: Path) -> None:
    """Raises InputError where an operator is not in the providers' domains, or the installed onnxruntime has none such."""
    known = {(schema.domain, schema.name) for schema in native.get_all_operator_schema()}
    for node in nodes(model.graph):
        if node.domain not in DOMAINS or (node.domain, node.op_type) not in known:
            name = f"{node.domain}.{node.op_type}".lstrip(".")
            has_none = f"onnxruntime {onnxruntime.__version__} has no operator {name}"
            raise InputError(f"{path.name}: {has_none}; leave out the option that brings it")


def nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes of a graph and of the branches in it."""
    found = []
    for node in graph.node:
        found.append(node)
        for attribute in node.attribute:
            found += [inner for branch in (attribute.g, *attribute.graphs) for inner in nodes(branch)]
    return found


def check_types(model: onnx.ModelProto, path: Path) -> None:
    """Raises InputError where onnx finds the graph malformed, or onnxruntime types and shapes that do not go together."""
    try:
        with chdir(path.parent):  # where onnx looks for the weights of a graph that it has not read itself
            onnx.checker.check_model(standing_apart(model))
        resolve(path)
    except Exception as error:  # of two native libraries, each with classes of its own
        raise InputError(f"{path.name}: these options give a graph that does not hold ({one_line(error)})") from error


def resolve(path: Path) -> None:
    """Has onnxruntime load a graph and infer its types and shapes, and stop before it reads weights and looks for kernels."""
    options = native.SessionOptions()
    options.log_severity_level = 3  # it warns of shapes that the builder writes down wrong, and corrects them
    native.InferenceSession(options, str(path), True, False)


def standing_apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which onnxruntime's own operators have its domain: some stand in that of the standard, where onnx seeks them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in nodes(copy.graph):
        if not node.domain and not onnx.defs.has(node.op_type):
            node.domain = "com.microsoft"
    return copy


def check_names(model: onnx.ModelProto, config: GenaiConfig) -> None:
    """Raises InputError where genai_config.json names inputs or outputs that are not there, or leaves out an input."""
    for side, given in (("inputs", model.graph.input), ("outputs", model.graph.output)):
        there = {value.name for value in given}
        patterns = {key: pattern_of(name) for key, name in config.decoder[side].items()}
        for key, pattern in patterns.items():
            if not any(pattern.fullmatch(name) for name in there):
                named: Any = config.decoder[side][key]
                absent = f"{config.graph.name} has no such {side[:-1]}"
                raise InputError(f"{FILE_NAME}: {key} is {named}, and {absent}; build the model again")
        there -= {tensor.name for tensor in model.graph.initializer}  # inputs with a value of their own, which adapters change
        unfed = [name for name in sorted(there) if not any(pattern.fullmatch(name) for pattern in patterns.values())]
        if unfed and side == "inputs":
            raise InputError(f"{FILE_NAME}: names no {unfed[0]}, which {config.graph.name} wants; build the model again")


def pattern_of(name: str) -> re.Pattern[str]:
    """What a name stands for: %d in it is the number of a layer."""
    return re.compile(re.escape(name).replace("%d", r"\d+"))
