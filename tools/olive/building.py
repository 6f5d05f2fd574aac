"""The passes that make an ONNX model: ModelBuilder, and the chain that did it before."""

import dataclasses
from typing import Any

from tools.olive.document import Leaf
from tools.olive.fate import Fate, Line, Rule, Value, fate_of, otherwise, refused, taken
from tunepress.config import builder_options
from tunepress.config.build import Build
from tunepress.core.errors import InputError
from tunepress.core.params import CONF

BUILDER = "modelbuilder"
PROVIDERS = {  # the builder's names, and what the groups of conf/build call them
    "CPUExecutionProvider": ("cpu", "cpu"),
    "CUDAExecutionProvider": ("cuda", "cuda"),
    "DmlExecutionProvider": ("dml", "dml"),
    "WebGpuExecutionProvider": ("webgpu", "webgpu"),
    "NvTensorRTRTXExecutionProvider": ("NvTensorRtRtx", "trt_rtx"),
}
DEFAULT = "CPUExecutionProvider"
ALGORITHMS = {"default": None, "k_quant_last": "k_quant"}  # names that the builder no longer has
SEARCH = refused("predict and serve set the length of an answer; the model's folder keeps the base model's values")


def group(precision: str, provider: str, path: str) -> str:
    """The group of conf/build for a precision and an execution provider.

    Raises:
        InputError: there is none.
    """
    _, prefix = PROVIDERS[provider]
    known = [one for one in builder_options.targets()[PROVIDERS[provider][0]] if (CONF / f"build/{prefix}_{one}.yaml").exists()]
    if precision not in known:
        raise InputError(f"{path}: no model in {precision!s} for {provider} in conf/build; there are {', '.join(known)}")
    return f"{prefix}_{precision}"


def lines(leaves: list[Leaf], provider: str) -> list[Line]:
    """The fate of each field of a ModelBuilder, without its type."""
    rules: dict[str, Rule] = {
        "metadata_only": lambda value: refused("there would be no model") if value else otherwise("a whole model is built"),
        "search": SEARCH,
    }
    known = []
    for leaf in leaves:
        name = leaf.name.removeprefix("extra_options.").removeprefix(builder_options.FORMER_PREFIX)
        if leaf.name == "precision":
            rules[leaf.name] = taken("/build", group(leaf.value, provider, leaf.path))
        elif leaf.name.startswith("search."):
            rules[leaf.name] = SEARCH
        elif leaf.name not in rules:
            rules[leaf.name] = option(name, leaf.value)
        known.append(Line(leaf, fate_of(leaf, rules, "")))
    return known


def option(name: str, value: Any) -> Fate:
    """The fate of one of the builder's options."""
    if value is None:
        return otherwise("the builder's own choice")
    if name in ("algo_config", "algorithm"):
        return taken("build.algo_config", ALGORITHMS.get(str(value), value))
    if name in {field.name for field in dataclasses.fields(Build)}:
        return taken(f"build.{name}", value)
    if name in builder_options.UNFIT and value is False:
        return otherwise("a whole model is built")
    listed = "/".join(map(str, value)) if isinstance(value, list) else value
    why = builder_options.refused_option(name, listed)
    return refused(why.partition(": ")[2]) if why else taken(f"build.extra_options.{name}", listed)


def default_precision(lines: list[Line], provider: str, path: str) -> list[Value]:
    """What Olive takes where a ModelBuilder has no precision."""
    if any("/build" in line.fate.values for line in lines):
        return []
    return [Value("/build", group("fp32", provider, path), "Olive's default precision")]
