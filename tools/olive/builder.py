"""The fields of ModelBuilder, which makes the ONNX model."""

import dataclasses
from typing import Any

from tools.olive.document import Leaf
from tools.olive.mapping import FieldMapping, MappedField, Rule, Value, covered, map_field, mapped_to, unsupported
from tunepress.config import builder_options
from tunepress.config.build import Build, option_problem
from tunepress.core.errors import InputError
from tunepress.core.params import CONF

BUILDER = "modelbuilder"
PROVIDERS = {  # the builder's names, and the prefixes of the groups in conf/build
    "CPUExecutionProvider": ("cpu", "cpu"),
    "CUDAExecutionProvider": ("cuda", "cuda"),
    "DmlExecutionProvider": ("dml", "dml"),
    "WebGpuExecutionProvider": ("webgpu", "webgpu"),
    "NvTensorRTRTXExecutionProvider": ("NvTensorRtRtx", "trt_rtx"),
}
DEFAULT = "CPUExecutionProvider"
ALGORITHMS = {"default": None, "k_quant_last": "k_quant"}  # names that the builder no longer accepts
WHOLE = "a whole model is built"
SEARCH = unsupported("predict and serve limit the length of an answer; the model folder keeps the base model's values")


def group(precision: str, provider: str, path: str) -> str:
    """Returns the group of conf/build for a precision and an execution provider.

    Raises:
        InputError: it does not exist.
    """
    _, prefix = PROVIDERS[provider]
    known = [
        name for name in builder_options.targets()[PROVIDERS[provider][0]] if (CONF / f"build/{prefix}_{name}.yaml").exists()
    ]
    if precision not in known:
        raise InputError(f"{path}: conf/build has no {precision!s} model for {provider}; it has {', '.join(known)}")
    return f"{prefix}_{precision}"


def map_builder(leaves: list[Leaf], provider: str, has_model: bool) -> list[MappedField]:
    """Maps the fields of a ModelBuilder, except its type.

    Args:
        leaves: the fields.
        provider: the execution provider.
        has_model: whether another pass makes the model, for which this one only writes genai_config.json.
    """
    no_model = covered(WHOLE) if has_model else unsupported("no model would be built")
    rules: dict[str, Rule] = {"metadata_only": lambda value: no_model if value else covered(WHOLE), "search": SEARCH}
    fields = []
    for leaf in leaves:
        name = leaf.name.removeprefix("extra_options.").removeprefix(builder_options.FORMER_PREFIX)
        if leaf.name == "precision":
            rules[leaf.name] = mapped_to("/build", group(leaf.value, provider, leaf.path))
        elif leaf.name.startswith("search."):
            rules[leaf.name] = SEARCH
        elif leaf.name not in rules:
            rules[leaf.name] = option(name, leaf.value)
        fields.append(MappedField(leaf, map_field(leaf, rules, "")))
    return fields


def option(name: str, value: Any) -> FieldMapping:
    """Maps an option of the builder."""
    if value in (None, {}, ""):
        return covered("the builder's default")
    if name in ("algo_config", "algorithm"):
        return mapped_to("build.algo_config", ALGORITHMS.get(str(value), value))
    if name in {field.name for field in dataclasses.fields(Build)}:
        return mapped_to(f"build.{name}", value)
    if name in builder_options.UNFIT and value is False:
        return covered(WHOLE)
    listed = "/".join(map(str, value)) if isinstance(value, list) else value
    problem = option_problem(name, listed)
    return unsupported(problem.partition(": ")[2]) if problem else mapped_to(f"build.extra_options.{name}", listed)


def default_precision(fields: list[MappedField], provider: str, path: str) -> list[Value]:
    """Olive's precision for a ModelBuilder that has none."""
    if any("/build" in field.mapping.values for field in fields):
        return []
    return [Value("/build", group("fp32", provider, path), "Olive's default precision")]
